//! Loss and errors over many images.

use crate::{
    lower::External, network::Network, outcomes::Outcomes, program::Program, report::Report, resident::Resident,
};
use alexnode_core::{Batch, BatchSource, Error, ErrorCode, Result, SlotId, StepState};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

/// A network that resides on slots, and the program that evaluates `batch` images.
pub(crate) struct Evaluator<'a> {
    pub network: &'a Network,
    pub batch: usize,
    pub resident: &'a mut Resident,
    pub program: &'a mut Program,
}

impl Evaluator<'_> {
    /// Loss and errors over all of `source`. `views`: 1 = the central crop, 10 = the paper's ten (four corners, centre, mirrored), probabilities
    /// averaged (section 4.1). With `outcomes`, what is made of each image is added to them.
    ///
    /// # Errors
    /// `ERR_ABORTED` where `cancel` is set, `ERR_DATA` from the source.
    pub fn run(
        self,
        source: &mut dyn BatchSource,
        views: u32,
        cancel: &AtomicBool,
        mut outcomes: Option<&mut Outcomes>,
    ) -> Result<Report> {
        let Self { network, batch: capacity, resident, program } = self;
        let begin = Instant::now();
        resident.clear_totals()?;
        let (mut steps, mut wait) = (0, 0.0);
        loop {
            if cancel.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorCode::Aborted, "the evaluation was stopped"));
            }
            let asked = Instant::now();
            let Some(batch) = source.next()? else { break };
            wait += asked.elapsed().as_secs_f64();
            check_batch(network, capacity, &batch)?;
            resident.stage(&batch)?;
            for view in 0..views {
                resident.write_state(&StepState { valid: batch.valid as u32, view, views, ..StepState::default() })?;
                program.issue(resident.backend())?;
            }
            if let Some(outcomes) = &mut outcomes {
                let classes = network.classes();
                let mut rows = vec![0.0f32; batch.valid * classes];
                resident.read(SlotId(0), External::Probabilities, &mut rows)?;
                for (index, row) in rows.chunks(classes).enumerate() {
                    outcomes.add(batch.ids[index], batch.labels[index], row);
                }
            }
            source.recycle(batch);
            steps += 1;
        }
        resident.backend().synchronize()?;
        Ok(Report::new(steps, resident.totals()?, begin, wait))
    }
}

/// Checks that `batch` is one of `capacity` images for `network`.
///
/// # Errors
/// `ERR_SHAPE` for another number or size of images, `ERR_DATA` for a label that is no class.
pub(crate) fn check_batch(network: &Network, capacity: usize, batch: &Batch) -> Result<()> {
    let size = network.image().expect("a network with images").image_size;
    if batch.pixels.len() != capacity * size * size * 3
        || batch.labels.len() != capacity
        || batch.ids.len() != capacity
        || batch.valid > capacity
    {
        return Err(Error::shape(format!(
            "expected a minibatch of {capacity} images of {size}x{size}x3 bytes, got {} bytes, {} labels, {} ids",
            batch.pixels.len(),
            batch.labels.len(),
            batch.ids.len()
        )));
    }
    let classes = network.classes();
    match batch.labels.iter().find(|label| usize::try_from(**label).map_or(true, |label| label >= classes)) {
        None => Ok(()),
        Some(label) => Err(Error::data(format!("label {label} is outside of the network's {classes} classes"))),
    }
}
