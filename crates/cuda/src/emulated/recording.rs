//! Commands recorded once and replayed, as a CUDA graph is: what takes part, and what must have been joined.

use super::Command;
use alexnode_core::{Error, Result};
use std::collections::{BTreeMap, HashMap};

/// One recorded call.
#[derive(Clone)]
pub(super) enum Step {
    /// A command of a stream.
    Issue(usize, Command),
    /// An event becomes the present of a stream.
    Record(usize, usize),
    /// A stream waits for an event.
    Wait(usize, usize),
}

/// Per stream: how many of its steps are known to be done.
type Clock = BTreeMap<usize, usize>;

/// A recording, open or whole.
#[derive(Clone)]
pub(super) struct Recording {
    pub steps: Vec<Step>,
    /// The stream that it began on.
    pub origin: usize,
    /// What each stream that takes part knows of the others.
    clocks: BTreeMap<usize, Clock>,
    /// What an event that was recorded knows.
    events: HashMap<usize, Clock>,
}

impl Recording {
    pub fn new(origin: usize) -> Self {
        Self { steps: Vec::new(), origin, clocks: BTreeMap::from([(origin, Clock::new())]), events: HashMap::new() }
    }

    /// The streams that take part, but the first.
    pub fn others(&self) -> impl Iterator<Item = usize> {
        self.clocks.keys().copied().filter(|stream| *stream != self.origin)
    }

    /// Adds a step.
    ///
    /// # Errors
    /// `ERR_KERNEL` for what a graph cannot hold: a stream that has not been forked off, an event of before, data of the host.
    pub fn push(&mut self, step: Step) -> Result<()> {
        let stranger = |stream| Error::kernel(format!("stream {stream} takes no part in the recording"));
        match &step {
            Step::Issue(_, Command::Write { .. }) => return Err(Error::kernel("an upload cannot be recorded")),
            Step::Issue(stream, _) => {
                let clock = self.clocks.get_mut(stream).ok_or_else(|| stranger(*stream))?;
                *clock.entry(*stream).or_default() += 1;
            }
            Step::Record(event, stream) => {
                let clock = self.clocks.get(stream).ok_or_else(|| stranger(*stream))?.clone();
                self.events.insert(*event, clock);
            }
            Step::Wait(stream, event) => {
                let known = self.events.get(event);
                let known = known.ok_or_else(|| Error::kernel(format!("event {event} is not of this recording")))?;
                let clock = self.clocks.entry(*stream).or_default();
                for (other, steps) in known {
                    let own = clock.entry(*other).or_default();
                    *own = (*own).max(*steps);
                }
            }
        }
        self.steps.push(step);
        Ok(())
    }

    /// Ends it.
    ///
    /// # Errors
    /// `ERR_KERNEL` where the first stream does not wait for everything that the others do.
    pub fn joined(self) -> Result<Self> {
        let origin = &self.clocks[&self.origin];
        for stream in self.others() {
            let own = self.clocks[&stream].get(&stream).copied().unwrap_or(0);
            if origin.get(&stream).copied().unwrap_or(0) < own {
                return Err(Error::kernel(format!("the recording ends before stream {stream} has been joined")));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Rows;

    fn work(stream: usize) -> Step {
        let nothing = Rows { from: 0, src: 0, src_pitch: 0, to: 0, dst: 0, dst_pitch: 0, row_bytes: 0, rows: 0 };
        Step::Issue(stream, Command::Copy(nothing))
    }

    fn recorded(steps: Vec<Step>) -> Result<Recording> {
        let mut recording = Recording::new(0);
        steps.into_iter().try_for_each(|step| recording.push(step))?;
        recording.joined()
    }

    #[test]
    fn what_is_forked_has_to_be_joined() {
        let fork = [work(0), Step::Record(7, 0), Step::Wait(1, 7), work(1)];
        let join = [Step::Record(8, 1), Step::Wait(0, 8)];
        let whole = recorded([&fork[..], &join].concat()).unwrap();
        assert_eq!((whole.others().collect::<Vec<_>>(), whole.steps.len()), (vec![1], 6));
        assert!(recorded(fork.to_vec()).err().unwrap().message().contains("joined"));
        // Joined too early.
        assert!(recorded([&fork[..3], &join, &fork[3..]].concat()).is_err());
        // By way of a third stream.
        let around = [Step::Record(8, 1), Step::Wait(2, 8), Step::Record(9, 2), Step::Wait(0, 9)];
        assert!(recorded([&fork[..], &around].concat()).is_ok());
    }

    #[test]
    fn what_a_graph_cannot_hold_is_refused() {
        let upload = Command::Write { device: 0, dst: 0, data: Vec::new() };
        assert!(recorded(vec![Step::Issue(0, upload)]).err().unwrap().message().contains("upload"));
        assert!(recorded(vec![work(3)]).err().unwrap().message().contains("stream 3"));
        assert!(recorded(vec![Step::Wait(0, 5)]).err().unwrap().message().contains("event 5"));
    }
}
