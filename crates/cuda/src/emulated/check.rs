//! What the checking flavour knows of every byte. Filled in by the instrumentation of the kernels.

/// The checker of one worker.
#[derive(Debug, Default)]
pub struct Check {}

impl Check {
    /// A new block begins: its shared memory is new.
    pub fn begin_block(&mut self) {}
    /// All threads of the block have met.
    pub fn barrier(&mut self) {}
    /// The lanes of `mask` of a warp have met.
    pub fn warp_met(&mut self, _warp: usize, _mask: u32) {}
    /// Shared memory was declared.
    pub fn shared(&mut self, _address: usize, _bytes: usize) {}
    /// An asynchronous copy to these bytes is under way.
    pub fn pending(&mut self, _address: usize, _bytes: usize) {}
    /// It has arrived.
    pub fn arrived(&mut self, _address: usize, _bytes: usize) {}
    /// A thread touches memory.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn access(
        &mut self,
        _address: usize,
        _bytes: usize,
        _kind: u32,
        _thread: usize,
        _block: [u32; 3],
        _site: usize,
    ) -> Result<(), String> {
        Ok(())
    }
}
