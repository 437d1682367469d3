//! A trained network that answers: probabilities of classes, and what any layer puts out. It has weights, but neither gradients nor momentum.

use crate::{
    evaluate::Evaluator,
    lower::External,
    network::{Network, NetworkSpec},
    placement::Placement,
    plan::Plan,
    program::Program,
    report::Report,
    request::{Mode, Request},
    resident::{Kind, Layout, MemoryUse, Resident},
    room::Demand,
    tensors::Source,
    weights::Weights,
};
use alexnode_core::{Backend, BatchSource, BufferId, Engine, Error, ErrorCode, Result, SlotId, SlotInfo, StepState};
use serde::Deserialize;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a model is made from.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelConfig {
    /// The network.
    pub network: NetworkSpec,
    /// The most images that are computed at a time.
    pub batch: usize,
}

/// A batch below the largest one is a quarter of the next one: few images do not cost what many do.
const STEP: usize = 4;

/// The plan of one number of images.
struct Rung {
    batch: usize,
    plan: Plan,
    program: Program,
}

/// Plans of the same thing for several numbers of images, the smallest first.
struct Ladder(Vec<Rung>);

impl Ladder {
    /// The rung that computes the first of `images` images at the least cost, and how many of them.
    fn rung(&mut self, images: usize) -> (&mut Rung, usize) {
        let enough = self.0.iter().position(|rung| rung.batch >= images).unwrap_or(self.0.len() - 1);
        let rung = &mut self.0[enough];
        let count = rung.batch.min(images);
        (rung, count)
    }
}

/// The ladder of a layer's output, with arenas of its own.
struct Output {
    layer: usize,
    ladder: Ladder,
    arenas: Vec<BufferId>,
}

/// A network with trained weights.
pub struct Model {
    network: Network,
    placement: Placement,
    resident: Resident,
    memory: Vec<MemoryUse>,
    probabilities: Ladder,
    /// Of the layer that was asked for last.
    output: Option<Output>,
}

/// The numbers of images of a ladder's rungs.
fn batches(most: usize) -> Vec<usize> {
    let smaller = |batch: &usize| (*batch > 1).then(|| (batch / STEP).max(1));
    let mut batches: Vec<usize> = std::iter::successors(Some(most), smaller).collect();
    batches.reverse();
    batches
}

impl Model {
    /// Plans and allocates the network on all slots of `backend`, with the weights and the statistics of `file`.
    ///
    /// # Errors
    /// `ERR_USAGE` and `ERR_SHAPE` for a network that makes no sense, `ERR_CHECKPOINT` where `file` belongs to another one, `ERR_DEVICE` where
    /// memory is short.
    pub fn new(config: ModelConfig, file: &dyn Source, backend: Box<dyn Backend>) -> Result<Self> {
        let network = Network::new(config.network)?;
        let placement = Placement::new(backend.slots().len())?;
        let build = |most: usize, engines: &[Engine]| plans(&network, placement, most, Mode::Eval, engines);
        let demand = Demand { network: &network, batch: config.batch, slots: backend.slots() };
        let plans = demand.plans(build, |plans| layout(plans))?;
        let layout = layout(&plans);
        let memory = layout.memory();
        let mut resident = Resident::new(backend, layout)?;
        let probabilities = ladder(&resident, plans, resident.arenas());
        // Rows behind the last image are computed, too: of a black image at first, later of earlier ones.
        for slot in resident.slots() {
            for what in [External::Pixels, External::Ids, External::Labels, External::State] {
                if let Some(view) = resident.find(slot, what) {
                    resident.backend().upload(view, &vec![0; view.bytes])?;
                }
            }
        }
        resident.clear_totals()?;
        Weights { network: &network, placement, resident: &mut resident }.load(file, &[Kind::Weight])?;
        Ok(Self { network, placement, resident, memory, probabilities, output: None })
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }
    /// The most images that are computed at a time.
    pub fn batch(&self) -> usize {
        self.probabilities.0.last().expect("at least one").batch
    }
    /// What each slot is.
    pub fn slots(&mut self) -> Vec<SlotInfo> {
        self.resident.backend().slots().to_vec()
    }
    /// What it takes of each slot.
    pub fn memory(&self) -> &[MemoryUse] {
        &self.memory
    }

    /// Probabilities of all classes, one row per image of `pixels` (`image_size x image_size x 3` bytes each, RGB). `views` as in
    /// [`evaluate`](Self::evaluate). An image's row depends on no other image, but for the rounding of sums by how many are computed at a time.
    ///
    /// # Errors
    /// `ERR_SHAPE` where `pixels` are no whole images, `ERR_ABORTED` where `cancel` is set, `ERR_DIVERGED` where a probability is no finite number.
    pub fn probabilities(&mut self, pixels: &[u8], views: u32, cancel: &AtomicBool) -> Result<Vec<f32>> {
        let (bytes, classes, images) = (self.image_bytes(), self.network.classes(), self.count(pixels)?);
        let mut all = vec![0.0f32; images * classes];
        let Self { resident, probabilities, .. } = self;
        let mut done = 0;
        while done < images {
            let (rung, count) = probabilities.rung(images - done);
            stage(resident, &pixels[done * bytes..][..count * bytes])?;
            for view in 0..views {
                check(cancel)?;
                resident.write_state(&StepState { valid: count as u32, view, views, ..StepState::default() })?;
                rung.program.issue(resident.backend())?;
            }
            let rows = &mut all[done * classes..][..count * classes];
            resident.read(SlotId(0), External::Probabilities, rows)?;
            done += count;
        }
        if all.iter().all(|p| p.is_finite()) {
            return Ok(all);
        }
        let message = format!("{}: a probability is not a finite number", self.network.name());
        Err(Error::new(ErrorCode::Diverged, message).hint("Its training had diverged: use an earlier checkpoint."))
    }

    /// What layer `layer` puts out for the central crop of each image of `pixels`: a row per image, in it channel after channel, each as rows of the map.
    /// It is that of the layer alone: behind a convolution or linear layer the ReLU has not been applied.
    ///
    /// # Errors
    /// `ERR_SHAPE` where `pixels` are no whole images, `ERR_ABORTED` where `cancel` is set, `ERR_DEVICE` where memory is short.
    pub fn outputs(&mut self, layer: usize, pixels: &[u8], cancel: &AtomicBool) -> Result<Vec<f32>> {
        self.open_output(layer)?;
        let (bytes, shape, images) = (self.image_bytes(), self.network.output(layer), self.count(pixels)?);
        let mut all = vec![0.0f32; images * shape.len()];
        let Self { network, placement, resident, output, .. } = self;
        let Output { ladder, arenas, .. } = output.as_mut().expect("just opened");
        let mut done = 0;
        while done < images {
            check(cancel)?;
            let (rung, count) = ladder.rung(images - done);
            stage(resident, &pixels[done * bytes..][..count * bytes])?;
            resident.write_state(&StepState { valid: count as u32, views: 1, ..StepState::default() })?;
            rung.program.issue(resident.backend())?;
            let out = &mut all[done * shape.len()..][..count * shape.len()];
            for &(_, slot, tensor) in rung.plan.outputs.iter().filter(|(of, ..)| *of == layer) {
                let first = match placement.splits(network, layer) {
                    true => placement.part(slot, shape.c).start,
                    false => 0,
                };
                let view = rung.plan.view(tensor.arg(), arenas, &|slot, what| resident.view(slot, what));
                let mut values = vec![0.0f32; (count * shape.pixels() - 1) * tensor.ld + tensor.shape.c];
                let used = view.slice(0, values.len() * 4);
                resident.backend().download(used, bytemuck::cast_slice_mut(&mut values))?;
                for (row, values) in values.chunks(tensor.ld).enumerate() {
                    let (image, pixel) = (row / shape.pixels(), row % shape.pixels());
                    for (channel, value) in values[..tensor.shape.c].iter().enumerate() {
                        out[image * shape.len() + (first + channel) * shape.pixels() + pixel] = *value;
                    }
                }
            }
            done += count;
        }
        Ok(all)
    }

    /// Index of the layer `name`.
    ///
    /// # Errors
    /// `ERR_USAGE` where there is none.
    pub fn layer(&self, name: &str) -> Result<usize> {
        let names: Vec<&str> = (0..self.network.len()).map(|index| self.network.layer(index).name()).collect();
        names.iter().position(|known| *known == name).ok_or_else(|| {
            Error::usage(format!("{} has no layer '{name}'", self.network.name()))
                .hint(format!("It has {}.", names.join(", ")))
        })
    }

    /// Loss and errors over all of `source`, whose minibatches have [`batch`](Self::batch) images. `views`: 1 = the central crop, 10 = the paper's ten
    /// (four corners, centre, mirrored), probabilities averaged (section 4.1).
    ///
    /// # Errors
    /// `ERR_ABORTED` where `cancel` is set, `ERR_DATA` from the source.
    pub fn evaluate(&mut self, source: &mut dyn BatchSource, views: u32, cancel: &AtomicBool) -> Result<Report> {
        let Self { network, resident, probabilities, .. } = self;
        let Rung { batch, program, .. } = probabilities.0.last_mut().expect("at least one");
        Evaluator { network, batch: *batch, resident, program }.run(source, views, cancel, None)
    }

    /// Makes the plans of a layer's output, in place of those of another one.
    fn open_output(&mut self, layer: usize) -> Result<()> {
        if self.output.as_ref().is_some_and(|output| output.layer == layer) {
            return Ok(());
        }
        for arena in self.output.take().into_iter().flat_map(|output| output.arenas) {
            self.resident.backend().free(arena);
        }
        let engines: Vec<Engine> = self.slots().iter().map(|slot| slot.engine).collect();
        let plans = plans(&self.network, self.placement, self.batch(), Mode::Output(layer), &engines)?;
        let mut arenas = Vec::new();
        for (slot, bytes) in layout(&plans).arena().iter().enumerate() {
            arenas.push(self.resident.backend().alloc(SlotId(slot as u8), (*bytes).max(1))?);
        }
        let ladder = ladder(&self.resident, plans, &arenas);
        self.output = Some(Output { layer, ladder, arenas });
        Ok(())
    }

    fn image_bytes(&self) -> usize {
        let size = self.network.image().expect("a network with images").image_size;
        size * size * 3
    }

    /// Of how many images `pixels` are.
    fn count(&self, pixels: &[u8]) -> Result<usize> {
        let bytes = self.image_bytes();
        if pixels.len().is_multiple_of(bytes) {
            return Ok(pixels.len() / bytes);
        }
        Err(Error::shape(format!("expected images of {bytes} bytes, got {} bytes", pixels.len())))
    }
}

fn check(cancel: &AtomicBool) -> Result<()> {
    if cancel.load(Ordering::Relaxed) {
        return Err(Error::new(ErrorCode::Aborted, "the model was stopped"));
    }
    Ok(())
}

/// Uploads images to every slot.
fn stage(resident: &mut Resident, pixels: &[u8]) -> Result<()> {
    resident.slots().try_for_each(|slot| resident.write(slot, External::Pixels, pixels))
}

/// A plan for each number of images on a ladder, the smallest first.
fn plans(
    network: &Network,
    placement: Placement,
    most: usize,
    mode: Mode,
    engines: &[Engine],
) -> Result<Vec<(usize, Plan)>> {
    network.check_batch(most)?;
    let plan = |batch| {
        let engines = engines.to_vec();
        Ok((
            batch,
            Plan::build(&Request {
                network,
                placement,
                batch,
                mode,
                momentum: 0.0,
                class_weights: false,
                keep_gradients: false,
                engines,
            })?,
        ))
    };
    batches(most).into_iter().map(plan).collect()
}

fn layout(plans: &[(usize, Plan)]) -> Layout {
    Layout::new(&plans.iter().map(|(_, plan)| plan).collect::<Vec<_>>())
}

/// `plans` on real memory.
fn ladder(resident: &Resident, plans: Vec<(usize, Plan)>, arenas: &[BufferId]) -> Ladder {
    let rung = |(batch, plan): (usize, Plan)| {
        let program = Program::new(plan.bind(arenas, &|slot, what| resident.view(slot, what)));
        Rung { batch, plan, program }
    };
    Ladder(plans.into_iter().map(rung).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ladder_ends_at_one_image() {
        assert_eq!(batches(1), [1]);
        assert_eq!(batches(6), [1, 6]);
        assert_eq!(batches(32), [1, 2, 8, 32]);
        assert_eq!(batches(128), [1, 2, 8, 32, 128]);
    }
}
