//! The trainer: runs steps and evaluations on a network that resides on the slots of a backend.

use crate::{
    checkpoint,
    evaluate::{Evaluator, check_batch},
    lower::{External, Phase},
    network::{Network, NetworkSpec},
    outcomes::Outcomes,
    parameter,
    placement::Placement,
    plan::{Counters, Op, Plan},
    program::{Program, issue_op},
    report::Report,
    resident::{Kind, Plans, Resident},
    room::Demand,
    statistics::{Observer, Statistics},
    tensors::Source,
    timing::{
        self, TimingOptions, Timings,
        profile::{self, Mode, Profile, ProfileOptions},
    },
    weights::Weights,
};
use alexnode_core::{Backend, Batch, BatchSource, Engine, Error, ErrorCode, Result, SlotId, StepState};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

/// What a trainer is made from.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrainerConfig {
    /// The network.
    pub network: NetworkSpec,
    /// Samples of a minibatch.
    pub batch: usize,
    /// Seed of every random number of the run.
    pub seed: u64,
    /// Momentum (paper: 0.9).
    pub momentum: f32,
    /// What the loss of a sample counts, for each class; see [`class_weights`](crate::class_weights). Default: 1 for all.
    #[serde(default)]
    pub class_weights: Option<Vec<f32>>,
}

/// Some steps of an epoch.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Segment {
    /// The epoch, from 0.
    pub epoch: u32,
    /// The first minibatch, counted within the epoch.
    pub batch: usize,
    /// The first step, counted over the run.
    pub step: u32,
    /// How many steps.
    pub steps: usize,
    /// Per layer with parameters: the learning rates of weight and bias.
    pub rates: BTreeMap<String, [f32; 2]>,
    /// Factor of the colour noise (paper: 0.1); 0 = off.
    pub colour_noise: f32,
    /// Whether to crop at random and mirror.
    pub augment: bool,
}

/// Statistics of the training images that the input needs.
#[derive(Clone, Copy, Debug)]
pub struct ImageStatistics<'a> {
    /// Mean image, `image_size x image_size x 3`, 0 to 255.
    pub mean: &'a [f32],
    /// Standard deviations along the principal components of the colours.
    pub deviations: [f32; 3],
    /// The components; row `i` belongs to deviation `i`.
    pub components: [[f32; 3]; 3],
}

/// A network in training.
pub struct Trainer {
    network: Network,
    placement: Placement,
    batch: usize,
    seed: u64,
    resident: Resident,
    plans: Plans,
    train: Program,
    eval: Program,
}

impl Trainer {
    /// Plans, allocates and initialises the network on all slots of `backend`.
    ///
    /// # Errors
    /// `ERR_USAGE` and `ERR_SHAPE` for a network that makes no sense, `ERR_DEVICE` where memory is short
    /// or a kernel cannot be compiled.
    pub fn new(config: TrainerConfig, images: ImageStatistics<'_>, backend: Box<dyn Backend>) -> Result<Self> {
        let TrainerConfig { network, batch, seed, momentum, class_weights } = config;
        let network = Network::new(network)?;
        let placement = Placement::new(backend.slots().len())?;
        let demand = Demand { network: &network, batch, slots: backend.slots() };
        if let Some(weights) = &class_weights {
            check_class_weights(&network, weights)?;
        }
        let weighted = class_weights.is_some();
        let build = |batch, engines: &[Engine]| Plans::build(&network, placement, batch, momentum, weighted, engines);
        let plans = demand.plans(build, Plans::layout)?;
        let mut resident = Resident::new(backend, plans.layout())?;
        let bind = |plan: &Plan| plan.bind(resident.arenas(), &|slot, what| resident.view(slot, what));
        let (train, eval) = (bind(&plans.train), bind(&plans.eval));
        resident.backend().prepare(&mut train.iter().chain(&eval).filter_map(Op::launch))?;
        let (train, eval) = (Program::new(train), Program::new(eval));
        let mut trainer = Self { network, placement, batch, seed, resident, plans, train, eval };
        trainer.initialise(images)?;
        if let Some(weights) = class_weights {
            trainer.resident.write(SlotId(0), External::ClassWeights, &weights)?;
        }
        Ok(trainer)
    }

    fn initialise(&mut self, images: ImageStatistics<'_>) -> Result<()> {
        for (index, parameter) in self.network.parameters().iter().enumerate() {
            let values = parameter::initial(parameter, index, self.seed);
            self.resident.put(&self.network, self.placement, index, Kind::Weight, &values)?;
            self.resident.clear(Kind::Momentum, index)?;
        }
        let input = self.network.image().expect("a network with images");
        let (size, crop) = (input.image_size, input.crop_size);
        if images.mean.len() != size * size * 3 {
            return Err(Error::shape(format!(
                "the mean image has {} elements, {} images of {size} pixels need {}",
                images.mean.len(),
                self.network.name(),
                size * size * 3
            )));
        }
        let border = (size - crop) / 2;
        let rows = (border..border + crop).flat_map(|y| &images.mean[(y * size + border) * 3..][..crop * 3]);
        let mean: Vec<f32> = rows.copied().collect();
        let colour: Vec<f32> = images.deviations.into_iter().chain(images.components.into_iter().flatten()).collect();
        for slot in self.resident.slots() {
            self.resident.write(slot, External::Mean, &mean)?;
            self.resident.write(slot, External::Colour, &colour)?;
            let state = self.resident.view(slot, External::State);
            self.resident.backend().upload(state, &vec![0; state.bytes])?;
        }
        self.resident.clear_totals()
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }
    /// Samples of a minibatch.
    pub fn batch(&self) -> usize {
        self.batch
    }
    /// What each slot is.
    pub fn slots(&mut self) -> Vec<alexnode_core::SlotInfo> {
        self.resident.backend().slots().to_vec()
    }
    /// What a training step does.
    pub fn counters(&self) -> Counters {
        self.plans.train.counters()
    }

    /// Trains on the next `segment.steps` minibatches of `source`, fewer where it ends or `cancel` is set.
    ///
    /// # Errors
    /// `ERR_DIVERGED` where the loss was not finite: the weights are those before that step, see [`diagnose`](Self::diagnose). `ERR_DATA` from the source,
    /// `ERR_USAGE` for missing rates.
    pub fn run(&mut self, source: &mut dyn BatchSource, segment: &Segment, cancel: &AtomicBool) -> Result<Report> {
        let begin = Instant::now();
        self.write_rates(&segment.rates)?;
        self.resident.clear_totals()?;
        let (mut steps, mut wait) = (0, 0.0);
        while steps < segment.steps && !cancel.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let Some(batch) = source.next()? else { break };
            wait += asked.elapsed().as_secs_f64();
            self.stage(&batch)?;
            self.resident.write_state(&self.training_state(segment, steps, &batch))?;
            self.train.issue(self.resident.backend())?;
            source.recycle(batch);
            steps += 1;
        }
        self.resident.backend().synchronize()?;
        let state = self.resident.state()?;
        if state.diverged != 0 {
            return Err(Error::new(
                ErrorCode::Diverged,
                format!("the loss of step {} is not a finite number", state.diverged - 1),
            ));
        }
        Ok(Report::new(steps, self.resident.totals()?, begin, wait))
    }

    /// The step whose loss was not finite, if there was one. Nothing has been learnt since.
    ///
    /// # Errors
    /// `ERR_KERNEL` where the device failed.
    pub fn diverged(&mut self) -> Result<Option<u32>> {
        Ok(self.resident.state()?.diverged.checked_sub(1))
    }

    /// Replays the forward pass of the step that diverged, one operation after the other, and names the first layer whose output is not finite.
    /// `segment` is the one that failed and `batch` the minibatch of that step.
    ///
    /// # Errors
    /// `ERR_KERNEL` where the device failed.
    pub fn diagnose(&mut self, segment: &Segment, batch: &Batch) -> Result<Error> {
        let step = self.diverged()?.unwrap_or(segment.step);
        self.stage(batch)?;
        self.resident.write_state(&self.training_state(segment, (step - segment.step) as usize, batch))?;
        let mut rates: Vec<(f32, Vec<&str>)> = Vec::new();
        for (layer, &[weight, _]) in &segment.rates {
            match rates.iter_mut().find(|(rate, _)| *rate == weight) {
                Some((_, layers)) => layers.push(layer),
                None => rates.push((weight, vec![layer])),
            }
        }
        let rates = match &rates[..] {
            [(rate, _)] => format!("rate: {rate}"),
            _ => rates
                .iter()
                .map(|(rate, layers)| format!("{rate} for {}", layers.join(", ")))
                .collect::<Vec<_>>()
                .join("; "),
        };
        let message = |what: String| {
            Error::new(ErrorCode::Diverged, format!("the loss of step {step} (epoch {}) is not a finite number: {what}", segment.epoch))
                .hint(format!("The weights are those before that step; try a smaller learning rate ({rates}), or look for broken images."))
        };
        for (index, parameter) in self.network.parameters().iter().enumerate() {
            let values = self.resident.get(&self.network, self.placement, index, Kind::Weight)?;
            if values.iter().any(|v| !v.is_finite()) {
                return Ok(message(format!("{} already held numbers that are not finite", parameter.name)));
            }
        }
        let mut done = 0;
        for (layer, slot, tensor) in self.plans.train.outputs.clone() {
            let belongs = |op: &Op| op.origin.phase <= Phase::Forward && op.origin.layer.is_none_or(|l| l <= layer);
            let end = self.train.ops().iter().rposition(belongs).map_or(0, |last| last + 1);
            for op in &self.train.ops()[done..end.max(done)] {
                issue_op(self.resident.backend(), op)?;
            }
            done = done.max(end);
            let view =
                self.plans.train.view(tensor.arg(), self.resident.arenas(), &|s, what| self.resident.view(s, what));
            let mut values = vec![0.0f32; view.bytes / 4];
            self.resident.backend().download(view, bytemuck::cast_slice_mut(&mut values))?;
            let bad = values
                .chunks(tensor.ld)
                .flat_map(|pixel| &pixel[..tensor.shape.c.min(pixel.len())])
                .filter(|v| !v.is_finite())
                .count();
            if bad > 0 {
                let (name, kind) = (self.network.layer(layer).name(), self.network.layer(layer).kind());
                let size = tensor.rows() * tensor.shape.c;
                return Ok(message(format!(
                    "{name} ({kind}) on slot {} is the first layer with such outputs ({bad} of {size})",
                    slot.0
                )));
            }
        }
        Ok(message("every layer's output is finite, the label's probability underflowed".into()))
    }

    /// Loss and errors over all of `source`. `views`: 1 = the central crop, 10 = the paper's ten (four corners, centre, mirrored),
    /// probabilities averaged (section 4.1).
    ///
    /// # Errors
    /// `ERR_ABORTED` where `cancel` is set, `ERR_DATA` from the source.
    pub fn evaluate(&mut self, source: &mut dyn BatchSource, views: u32, cancel: &AtomicBool) -> Result<Report> {
        let Self { network, batch, resident, eval, .. } = self;
        Evaluator { network, batch: *batch, resident, program: eval }.run(source, views, cancel, None)
    }

    /// The same, with what is made of each image.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate).
    pub fn judge(
        &mut self,
        source: &mut dyn BatchSource,
        views: u32,
        cancel: &AtomicBool,
    ) -> Result<(Report, Outcomes)> {
        let Self { network, batch, resident, eval, .. } = self;
        let mut outcomes = Outcomes::new(network.classes());
        let evaluator = Evaluator { network, batch: *batch, resident, program: eval };
        let report = evaluator.run(source, views, cancel, Some(&mut outcomes))?;
        Ok((report, outcomes))
    }

    /// How the network is doing inside, its units looked at with the central crops of all images of `source`. Nothing changes by it.
    ///
    /// # Errors
    /// `ERR_ABORTED` where `cancel` is set, `ERR_DATA` from the source.
    pub fn statistics(&mut self, source: &mut dyn BatchSource, cancel: &AtomicBool) -> Result<Statistics> {
        let Self { network, placement, batch, resident, plans, eval, .. } = self;
        let observer =
            Observer { network, placement: *placement, batch: *batch, resident, plan: &plans.eval, program: eval };
        observer.run(source, cancel)
    }

    /// How long a training step takes, as a whole and operation by operation, on the minibatch `batch`; see [`timing`]. Afterwards all is as it was.
    ///
    /// # Errors
    /// `ERR_USAGE` for options that make no sense, `ERR_ABORTED` where `cancel` is set, `ERR_DEVICE` where there is no memory to keep aside what operations
    /// change in place, `ERR_DIVERGED` where the loss was not a finite number: updates do nothing then.
    pub fn timings(&mut self, batch: &Batch, options: &TimingOptions, cancel: &AtomicBool) -> Result<Timings> {
        let before = self.resident.snapshot()?;
        let outcome = self.measure(batch, options, cancel);
        self.resident.restore(&before)?;
        outcome
    }

    /// Runs `options.steps` steps or evaluations of the minibatch `batch`, with stamps between their operations; see [`timing::profile`]. Weights and
    /// momentum change: by steps of a rate of 1e-6.
    ///
    /// # Errors
    /// `ERR_USAGE` for no steps, `ERR_ABORTED` where `cancel` is set, `ERR_DIVERGED` where the loss was not a finite number.
    pub fn profile(&mut self, batch: &Batch, options: &ProfileOptions, cancel: &AtomicBool) -> Result<Profile> {
        check_batch(&self.network, self.batch, batch)?;
        self.write_rates(&self.small_rates())?;
        self.resident.clear_totals()?;
        let state = match options.mode {
            Mode::Train => self.noisy_state(batch),
            Mode::Evaluate => StepState { valid: batch.valid as u32, views: 1, ..StepState::default() },
        };
        let Self { network, plans, train, eval, resident, .. } = self;
        let (plan, program) = match options.mode {
            Mode::Train => (&plans.train, &*train),
            Mode::Evaluate => (&plans.eval, &*eval),
        };
        let program = profile::Program { network, batch: self.batch, plan, ops: program.ops() };
        let profile = program.run(
            resident,
            options.steps,
            &mut |resident| {
                resident.stage(batch)?;
                resident.write_state(&state)
            },
            cancel,
        )?;
        match self.diverged()? {
            None => Ok(profile),
            Some(_) => Err(Error::new(ErrorCode::Diverged, "the loss of the step to be timed is not a finite number")),
        }
    }

    /// At a rate of 0 an update has nothing to do.
    fn small_rates(&self) -> BTreeMap<String, [f32; 2]> {
        let layers = self.network.parameters().iter().map(|p| self.network.layer(p.layer).name().to_owned());
        layers.map(|layer| (layer, [1e-6, 1e-6])).collect()
    }

    fn noisy_state(&self, batch: &Batch) -> StepState {
        StepState { valid: batch.valid as u32, views: 1, colour_noise: 0.1, ..self.seeded() }
    }

    fn measure(&mut self, batch: &Batch, options: &TimingOptions, cancel: &AtomicBool) -> Result<Timings> {
        self.stage(batch)?;
        self.write_rates(&self.small_rates())?;
        let state = self.noisy_state(batch);
        for slot in self.resident.slots() {
            self.resident.write(slot, External::State, &[state])?;
        }
        let Self { network, batch, plans, train, resident, .. } = self;
        let step = timing::Step { network, batch: *batch, plan: &plans.train, ops: train.ops() };
        let timings = timing::measure(resident.backend(), &step, options, cancel)?;
        match self.diverged()? {
            None => Ok(timings),
            Some(_) => Err(Error::new(ErrorCode::Diverged, "the loss of the step to be timed is not a finite number")),
        }
    }

    /// A tensor by its name in files (`conv1.weight`, `momentum.conv1.weight`), in the order of files (weights of convolutions: OIHW), with its shape.
    ///
    /// # Errors
    /// `ERR_USAGE` where there is no such tensor.
    pub fn tensor(&mut self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        self.weights().tensor(name)
    }

    /// Writes weights, momentum, the statistics of the training images and `metadata` to `path`; see [`checkpoint`].
    ///
    /// # Errors
    /// `ERR_CHECKPOINT` where the file cannot be written; what was at `path` before is untouched then.
    pub fn save(&mut self, path: &Path, metadata: &str) -> Result<checkpoint::Saved> {
        self.weights().save(path, metadata)
    }

    /// Reads weights, momentum and statistics back from `path`, on whatever placement they were written. Returns the metadata.
    ///
    /// # Errors
    /// `ERR_CHECKPOINT` where the file is missing, broken, or belongs to another network; nothing has changed then. The same where it can no longer be read
    /// while it is loaded: the trainer is of no use then.
    pub fn load(&mut self, path: &Path) -> Result<String> {
        let file = checkpoint::read(path)?;
        self.weights().load(&file, &[Kind::Weight, Kind::Momentum])?;
        for slot in self.resident.slots() {
            self.resident.write(slot, External::State, &[StepState::default()])?;
        }
        Ok(file.metadata().to_owned())
    }

    /// Takes over what another network has learnt: the parameters named, and with `mean` the mean image of its training.
    ///
    /// # Errors
    /// `ERR_USAGE` where there is no such parameter, `ERR_CHECKPOINT` where `source` has none of its shape; nothing has changed then.
    pub fn adopt(&mut self, source: &dyn Source, names: &[String], mean: bool) -> Result<()> {
        self.weights().adopt(source, names, mean)
    }

    fn weights(&mut self) -> Weights<'_> {
        Weights { network: &self.network, placement: self.placement, resident: &mut self.resident }
    }

    fn seeded(&self) -> StepState {
        StepState { seed_low: self.seed as u32, seed_high: (self.seed >> 32) as u32, ..StepState::default() }
    }

    fn training_state(&self, segment: &Segment, done: usize, batch: &Batch) -> StepState {
        StepState {
            epoch: segment.epoch,
            step: segment.step + done as u32,
            valid: batch.valid as u32,
            views: u32::from(segment.augment),
            colour_noise: segment.colour_noise,
            ..self.seeded()
        }
    }

    /// Writes the learning rates, one per parameter tensor, behind the head of the state.
    fn write_rates(&mut self, rates: &BTreeMap<String, [f32; 2]>) -> Result<()> {
        let mut table = Vec::new();
        for parameter in self.network.parameters() {
            let layer = self.network.layer(parameter.layer).name();
            let [weight, bias] = rates
                .get(layer)
                .ok_or_else(|| Error::usage(format!("the segment has no learning rates for {layer}")))?;
            table.push(if parameter.spec.name == "bias" { *bias } else { *weight });
        }
        if let Some(stranger) = rates
            .keys()
            .find(|name| !self.network.parameters().iter().any(|p| self.network.layer(p.layer).name() == *name))
        {
            return Err(Error::usage(format!(
                "the segment has learning rates for {stranger}, which is no layer with parameters of {}",
                self.network.name()
            )));
        }
        let bytes: &[u8] = bytemuck::cast_slice(&table);
        for slot in self.resident.slots() {
            let view = self.resident.view(slot, External::State).slice(size_of::<StepState>(), bytes.len());
            self.resident.backend().upload(view, bytes)?;
        }
        Ok(())
    }

    /// Uploads a minibatch to every slot.
    fn stage(&mut self, batch: &Batch) -> Result<()> {
        check_batch(&self.network, self.batch, batch)?;
        self.resident.stage(batch)
    }
}

fn check_class_weights(network: &Network, weights: &[f32]) -> Result<()> {
    let (name, classes) = (network.name(), network.classes());
    if weights.len() != classes {
        return Err(Error::shape(format!("{name}: expected {classes} class weights, got {}", weights.len())));
    }
    match weights.iter().position(|weight| !weight.is_finite() || *weight < 0.0) {
        Some(class) => Err(Error::usage(format!("{name}: the weight of class {class} is {}", weights[class]))
            .hint("Weights are finite and not below 0.")),
        None => Ok(()),
    }
}
