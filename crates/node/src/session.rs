//! What lives on a trainer's own thread: the trainer, and where in the training images it stands.

use crate::{devices, error::json, interchange::Weights};
use alexnode_core::{Batch, BatchSource, Error, ErrorCode, Result};
use alexnode_data::{Dataset, Loader, LoaderOptions, Split};
use alexnode_nn::{
    network::NetworkSpec,
    outcomes::Outcomes,
    timing::{TimingOptions, profile::ProfileOptions},
    trainer::{ImageStatistics, Segment, Trainer, TrainerConfig},
};
use serde::Deserialize;
use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

/// What a trainer is made from.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    network: NetworkSpec,
    devices: Vec<String>,
    #[serde(default)]
    threads: Option<usize>,
    batch: usize,
    seed: u64,
    #[serde(default = "paper_momentum")]
    momentum: f32,
    #[serde(default = "crate::functions::fp32")]
    precision: String,
    #[serde(default)]
    notices: bool,
}

fn paper_momentum() -> f32 {
    0.9
}

/// Which images to test on, and how.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Evaluation {
    split: Split,
    crops: u32,
    #[serde(default)]
    limit: Option<usize>,
}

/// What to take over from which file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Adoption {
    weights: Weights,
    /// Names of parameters.
    parameters: Vec<String>,
    /// Whether the mean image comes along.
    mean: bool,
}

/// Some images of a split.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sample {
    split: Split,
    limit: usize,
}

/// Where the next minibatch of an open loader stands.
#[derive(Clone, Copy, PartialEq)]
struct Position {
    epoch: u32,
    batch: usize,
}

/// A trainer with its data.
pub struct Session {
    trainer: Trainer,
    dataset: Arc<Dataset>,
    seed: u64,
    link: Option<String>,
    /// Kept between segments, so that the images of the next one are decoded meanwhile.
    loader: Option<(Position, Loader)>,
    /// The first minibatch of the training images, once it has been asked for again and again.
    first: Option<Batch>,
}

impl Session {
    /// Opens the devices, plans and initialises the network.
    ///
    /// # Errors
    /// `ERR_USAGE`, `ERR_SHAPE` or `ERR_DEVICE`, naming what does not fit.
    pub fn new(config: Config, dataset: Arc<Dataset>) -> Result<Self> {
        let Config { network, devices, threads, batch, seed, momentum, precision, notices } = config;
        let info = dataset.info();
        if info.classes.len() != network.classes {
            return Err(Error::usage(format!(
                "{}: the network has {} classes, the data set {}",
                network.name,
                network.classes,
                info.classes.len()
            ))
            .hint("Make the network for the classes of the data set."));
        }
        if info.image_size != network.input.image_size {
            return Err(Error::shape(format!(
                "{}: expected images of {} pixels, the data set was opened with {}",
                network.name, network.input.image_size, info.image_size
            ))
            .hint("Open the data set with the network's input.imageSize."));
        }
        let statistics = dataset.statistics();
        let images =
            ImageStatistics { mean: &statistics.mean, deviations: statistics.stdevs, components: statistics.vectors };
        let request = devices::Request { names: &devices, threads, precision: precision.parse()?, notices };
        let backend = request.open()?;
        let link = backend.link();
        let class_weights = info.class_weights.clone();
        let trainer = Trainer::new(TrainerConfig { network, batch, seed, momentum, class_weights }, images, backend)?;
        Ok(Self { trainer, dataset, seed, link, loader: None, first: None })
    }

    /// How data gets from one device to another, where there is something to tell.
    pub fn link(&self) -> Option<&str> {
        self.link.as_deref()
    }

    /// Trains on the minibatches of `segment`.
    ///
    /// # Errors
    /// As [`Trainer::run`]; a loss that is not finite names the first layer at fault.
    pub fn run(&mut self, segment: &Segment, cancel: &AtomicBool) -> Result<String> {
        let from = Position { epoch: segment.epoch, batch: segment.batch };
        let mut loader = match self.loader.take() {
            Some((position, loader)) if position == from => loader,
            _ => self.training(from)?,
        };
        match self.trainer.run(&mut loader, segment, cancel) {
            Ok(report) => {
                let next = Position { batch: from.batch + report.steps, ..from };
                self.loader = Some((next, loader));
                json(&report)
            }
            Err(error) if error.code() == ErrorCode::Diverged => {
                drop(loader);
                Err(self.diagnosis(segment)?.unwrap_or(error))
            }
            Err(error) => Err(error),
        }
    }

    /// The first layer at fault in the step that diverged, from a replay of that step.
    fn diagnosis(&mut self, segment: &Segment) -> Result<Option<Error>> {
        let Some(step) = self.trainer.diverged()? else { return Ok(None) };
        let done = step.saturating_sub(segment.step) as usize;
        let at = Position { epoch: segment.epoch, batch: segment.batch + done };
        let Some(batch) = self.training(at)?.next()? else { return Ok(None) };
        self.trainer.diagnose(segment, &batch).map(Some)
    }

    fn training(&self, from: Position) -> Result<Loader> {
        self.dataset.loader(&LoaderOptions {
            split: Split::Train,
            batch: self.trainer.batch(),
            seed: self.seed,
            epoch: from.epoch,
            first_batch: from.batch,
            shuffle: true,
            limit: None,
        })
    }

    /// Tests on a split.
    ///
    /// # Errors
    /// As [`Trainer::evaluate`].
    pub fn evaluate(&mut self, evaluation: &Evaluation, cancel: &AtomicBool) -> Result<String> {
        let Evaluation { split, crops, limit } = *evaluation;
        let mut loader = self.dataset.loader(&LoaderOptions::test(split, self.trainer.batch(), self.seed, limit))?;
        json(&self.trainer.evaluate(&mut loader, crops, cancel)?)
    }

    /// The same, with what is made of each image.
    ///
    /// # Errors
    /// As [`Trainer::judge`].
    pub fn judge(&mut self, evaluation: &Evaluation, cancel: &AtomicBool) -> Result<(String, Outcomes)> {
        let Evaluation { split, crops, limit } = *evaluation;
        let mut loader = self.dataset.loader(&LoaderOptions::test(split, self.trainer.batch(), self.seed, limit))?;
        let (report, outcomes) = self.trainer.judge(&mut loader, crops, cancel)?;
        Ok((json(&report)?, outcomes))
    }

    /// How the network is doing inside, its units looked at with images of a split.
    ///
    /// # Errors
    /// As [`Trainer::statistics`].
    pub fn statistics(&mut self, sample: &Sample, cancel: &AtomicBool) -> Result<String> {
        let Sample { split, limit } = *sample;
        let mut loader =
            self.dataset.loader(&LoaderOptions::test(split, self.trainer.batch(), self.seed, Some(limit)))?;
        json(&self.trainer.statistics(&mut loader, cancel)?)
    }

    /// How long a training step takes, on the first minibatch of the training images.
    ///
    /// # Errors
    /// As [`Trainer::timings`].
    pub fn timings(&mut self, options: &TimingOptions, cancel: &AtomicBool) -> Result<String> {
        let batch = self.first()?;
        json(&self.trainer.timings(&batch, options, cancel)?)
    }

    /// Steps on the first minibatch of the training images, with stamps between their operations.
    ///
    /// # Errors
    /// As [`Trainer::profile`].
    pub fn profile(&mut self, options: &ProfileOptions, cancel: &AtomicBool) -> Result<String> {
        let batch = match self.first.take() {
            Some(batch) => batch,
            None => self.first()?,
        };
        let profile = self.trainer.profile(&batch, options, cancel);
        self.first = Some(batch);
        json(&profile?)
    }

    fn first(&mut self) -> Result<Batch> {
        let batch = self.training(Position { epoch: 0, batch: 0 })?.next()?;
        batch.ok_or_else(|| Error::usage("there are no images to train on"))
    }

    /// Writes a checkpoint.
    ///
    /// # Errors
    /// `ERR_CHECKPOINT`.
    pub fn save(&mut self, path: &Path, metadata: &str) -> Result<String> {
        json(&self.trainer.save(path, metadata)?)
    }

    /// Reads a checkpoint, and returns its metadata.
    ///
    /// # Errors
    /// `ERR_CHECKPOINT`; nothing has changed then.
    pub fn load(&mut self, path: &Path) -> Result<String> {
        self.trainer.load(path)
    }

    /// Takes over what another network has learnt.
    ///
    /// # Errors
    /// As [`Trainer::adopt`].
    pub fn adopt(&mut self, adoption: Adoption) -> Result<()> {
        let Adoption { weights, parameters, mean } = adoption;
        self.trainer.adopt(&*weights.open()?, &parameters, mean)
    }

    /// Shape and elements of a tensor.
    ///
    /// # Errors
    /// `ERR_USAGE` where there is no such tensor.
    pub fn tensor(&mut self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        self.trainer.tensor(name)
    }
}
