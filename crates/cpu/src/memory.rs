//! Memory of a slot, and what the system says about itself.

use alexnode_core::{Error, Result, system::free_memory};
use memmap2::MmapMut;

/// Zeroed, page-aligned memory, on huge pages where the system has them, already backed by real memory.
pub struct Memory {
    map: MmapMut,
    // Taken once: later `&mut` borrows of the map would contradict the slot's threads that use the address.
    pointer: *mut u8,
    len: usize,
}

// SAFETY: the address is only handed out; who dereferences it answers for exclusive use.
unsafe impl Send for Memory {}

impl Memory {
    /// `bytes` bytes.
    ///
    /// # Errors
    /// `ERR_DEVICE` where less memory is free.
    pub fn new(bytes: usize) -> Result<Self> {
        if let Some(free) = free_memory()
            && bytes as u64 > free
        {
            return Err(too_large(bytes, Some(free)));
        }
        let mut map = MmapMut::map_anon(bytes.max(1)).map_err(|e| too_large(bytes, free_memory()).caused_by(e))?;
        #[cfg(target_os = "linux")]
        {
            // Both are offers: a kernel without huge pages or without this advice still gives memory, page by page.
            let _ = map.advise(memmap2::Advice::HugePage);
            let _ = map.advise(memmap2::Advice::PopulateWrite);
        }
        let pointer = map.as_mut_ptr();
        Ok(Self { map, pointer, len: bytes })
    }
    /// The first byte.
    pub fn pointer(&self) -> *mut u8 {
        self.pointer
    }
    /// The number of bytes.
    pub fn len(&self) -> usize {
        debug_assert!(self.len <= self.map.len());
        self.len
    }
}

fn too_large(bytes: usize, free: Option<u64>) -> Error {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let free = free.map_or(String::new(), |free| format!(", {} MiB are free", mib(free)));
    Error::device(format!("cpu: cannot reserve {} MiB{free}", mib(bytes as u64)))
        .hint("Use a smaller batch, smaller images or a smaller network, or end other programs.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use alexnode_core::ErrorCode;

    #[test]
    fn too_much_is_a_device_error_that_says_how_much_is_free() {
        let Some(free) = free_memory() else { return };
        let error = Memory::new(free as usize * 4).err().expect("four times the free memory cannot be had");
        assert_eq!(error.code(), ErrorCode::Device);
        assert!(error.message().contains("MiB are free"), "{error}");
        assert!(error.remedy().is_some());
    }
}
