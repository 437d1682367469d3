//! Real devices, through the driver that NVIDIA's kernel module brings: cudarc looks its functions up when they are called, so that this program builds
//! and starts on machines that have none.
//!
//! | module | about |
//! |---|---|
//! | `context` | a device's primary context: streams, events, memory |
//! | `failure` | what a failed call says to the reader |
//! | `graph` | commands recorded once and replayed |
//! | `module` | compiled kernels on a device |
//! | `peer` | copies between devices: whether they reach each other, proven and timed |
//! | `probe` | [`probe`]: what is there, and what to do about the rest |
//! | `relay` | copies through page-locked memory, where they do not |
//! | `rows` | rows in the driver's terms |
//! | `upload` | uploads through page-locked memory |

mod context;
mod failure;
mod graph;
mod module;
mod peer;
mod probe;
mod relay;
mod rows;
mod upload;

use crate::{
    compile::Images,
    driver::{Address, Call, DeviceIndex, Driver, Event, Function, Properties, Recording, Rows, Stream},
    program::Program,
};
use alexnode_core::{Error, Result};
use context::Context;
use cudarc::driver::sys::{CUevent, CUstream};
use failure::cuda;
use graph::Graph;
use module::Module;
pub use peer::Link;
use peer::Way;
pub use probe::{Probe, ProbedCompiler, ProbedDevice, Problem, SharedMemory, device, free_memory, links, probe};
use std::{collections::HashMap, ffi::c_void};
use upload::Uploads;

/// Drives real devices. The same device may be named twice: its places share a context, and its memory.
pub struct CudaDriver {
    images: Images,
    devices: Vec<Properties>,
    /// Per device: its context.
    places: Vec<usize>,
    contexts: Vec<Context>,
    uploads: Vec<Uploads>,
    /// Of each pair of contexts, in both directions.
    ways: HashMap<(usize, usize), Way>,
    links: Vec<Link>,
    streams: Vec<(usize, CUstream)>,
    /// What has been allocated and not been given back, and the context that it is of.
    allocated: HashMap<Address, usize>,
    events: Vec<(usize, CUevent)>,
    /// Per context and program, in the order of their [`Function`]s.
    modules: Vec<Module>,
    loaded: HashMap<(usize, Program), Function>,
    graphs: Vec<Graph>,
    /// Told of compilations.
    progress: Box<dyn Fn(&str) + Send + Sync>,
}

// SAFETY: handles of the driver belong to no thread; every call binds its context first.
unsafe impl Send for CudaDriver {}

impl CudaDriver {
    /// Opens the devices with these ordinals, and finds out how they reach each other. `progress` is told, in words, what a start that compiles
    /// kernels is doing.
    ///
    /// # Errors
    /// `ERR_DEVICE` where there is no driver, it is too old, it has no such device, or the device refuses to be used.
    pub fn new(ordinals: &[usize], progress: Box<dyn Fn(&str) + Send + Sync>) -> Result<Self> {
        let version = probe::start()?;
        let (mut distinct, mut places) = (Vec::new(), Vec::new());
        for &ordinal in ordinals {
            device(ordinal)?.usable()?;
            let place = distinct.iter().position(|other| *other == ordinal).unwrap_or_else(|| {
                distinct.push(ordinal);
                distinct.len() - 1
            });
            places.push(place);
        }
        probe::guarded(|| {
            let contexts = distinct.into_iter().map(Context::retain).collect::<Result<Vec<_>>>()?;
            let (mut ways, mut links) = (HashMap::new(), Vec::new());
            for a in 0..contexts.len() {
                for b in a + 1..contexts.len() {
                    let [(there, to_b), (back, to_a)] = peer::connect(&contexts[a], &contexts[b])?;
                    ways.insert((a, b), there);
                    ways.insert((b, a), back);
                    links.extend([to_b, to_a]);
                }
            }
            let describe = |place: &usize| {
                let context = &contexts[*place];
                Ok(Properties {
                    device: context.name,
                    description: context::product(context.name, context.device)?,
                    compute: context::compute(context.name, context.device)?,
                    memory: context.memory()?,
                })
            };
            let devices = places.iter().map(describe).collect::<Result<Vec<_>>>()?;
            Ok(Self {
                images: Images::new(Some(version)),
                devices,
                places,
                uploads: contexts.iter().map(|_| Uploads::new()).collect(),
                contexts,
                ways,
                links,
                streams: Vec::new(),
                allocated: HashMap::new(),
                events: Vec::new(),
                modules: Vec::new(),
                loaded: HashMap::new(),
                graphs: Vec::new(),
                progress,
            })
        })
    }

    fn context(&self, device: DeviceIndex) -> &Context {
        &self.contexts[self.places[device]]
    }

    fn stream_of(&self, stream: Stream) -> (&Context, CUstream) {
        let (context, raw) = self.streams[stream.index];
        (&self.contexts[context], raw)
    }

    /// Waits for everything that this driver has issued.
    fn settle(&self) -> Result<()> {
        self.streams.iter().try_for_each(|(context, raw)| self.contexts[*context].synchronize(*raw))
    }
}

impl Driver for CudaDriver {
    fn devices(&self) -> &[Properties] {
        &self.devices
    }

    fn stream(&mut self, device: DeviceIndex) -> Result<Stream> {
        let raw = self.context(device).stream()?;
        self.streams.push((self.places[device], raw));
        Ok(Stream { device, index: self.streams.len() - 1 })
    }

    fn alloc(&mut self, device: DeviceIndex, bytes: usize) -> Result<Address> {
        let address = self.context(device).alloc(bytes)?;
        self.allocated.insert(address, self.places[device]);
        Ok(address)
    }

    fn free(&mut self, device: DeviceIndex, address: Address) -> Result<()> {
        // A copy to another device may still read it.
        self.settle()?;
        self.context(device).free(address)?;
        self.allocated.remove(&address);
        Ok(())
    }

    fn upload(&mut self, stream: Stream, dst: Address, src: &[u8]) -> Result<()> {
        let (context, raw) = self.streams[stream.index];
        self.uploads[context].write(&self.contexts[context], raw, dst, src)
    }

    fn download(&mut self, stream: Stream, src: Address, dst: &mut [u8]) -> Result<()> {
        let (context, raw) = self.stream_of(stream);
        context.bind()?;
        // SAFETY: the backend resolved `src` to living memory of this size; `dst` outlives the wait below.
        unsafe { cuda!(context.name, cuMemcpyDtoHAsync_v2(dst.as_mut_ptr().cast(), src, dst.len(), raw)) }?;
        self.synchronize(stream)
    }

    fn copy(&mut self, stream: Stream, rows: &Rows) -> Result<()> {
        let Some(rows) = rows::simplest(rows)? else { return Ok(()) };
        let (from, to) = (self.places[rows.from], self.places[rows.to]);
        let (_, raw) = self.streams[stream.index];
        let target = &self.contexts[to];
        if let Some(way) = self.ways.get_mut(&(from, to)) {
            return way.copy(&self.contexts[from], target, raw, &rows);
        }
        target.bind()?;
        // SAFETY: the backend resolved both ends to living memory of this device.
        unsafe {
            if rows.rows == 1 {
                cuda!(target.name, cuMemcpyDtoDAsync_v2(rows.dst, rows.src, rows.row_bytes, raw))
            } else {
                cuda!(target.name, cuMemcpy3DAsync_v2(&rows::within(&rows), raw))
            }
        }
    }

    fn load(&mut self, device: DeviceIndex, programs: &[Program]) -> Result<Vec<Function>> {
        let place = self.places[device];
        let mut missing: Vec<Program> = Vec::new();
        for program in programs {
            if !self.loaded.contains_key(&(place, program.clone())) && !missing.contains(program) {
                missing.push(program.clone());
            }
        }
        let (name, compute) = (self.devices[device].device, self.devices[device].compute);
        let told = |p: crate::compile::Progress<'_>| {
            (self.progress)(&format!("{name}: {} of {} kernels compiled by {}", p.done, p.total, p.compiler));
        };
        let images = self.images.images(&missing, compute, &told)?;
        for (program, image) in missing.into_iter().zip(images) {
            let module = Module::load(&self.contexts[place], &image, program.entry)?;
            self.modules.push(module);
            self.loaded.insert((place, program), Function(self.modules.len() - 1));
        }
        Ok(programs.iter().map(|program| self.loaded[&(place, program.clone())]).collect())
    }

    fn launch(&mut self, stream: Stream, call: &Call<'_>) -> Result<()> {
        let (context, raw) = self.stream_of(stream);
        let function = self.modules[call.function.0].function;
        // The driver reads each argument through a pointer, before it returns.
        let mut arguments: Vec<*mut c_void> = Vec::with_capacity(call.buffers.len() + 1);
        arguments.push(call.params.as_ptr().cast_mut().cast());
        arguments.extend(call.buffers.iter().map(|address| std::ptr::from_ref(address).cast_mut().cast::<c_void>()));
        let [x, y, z] = call.grid;
        let none = std::ptr::null_mut();
        context.bind()?;
        // SAFETY: the kernel was compiled for parameters of this size and as many buffers, which the backend resolved to living memory.
        unsafe {
            cuda!(
                context.name,
                cuLaunchKernel(function, x, y, z, call.threads, 1, 1, 0, raw, arguments.as_mut_ptr(), none)
            )
        }
        .map_err(|e| e.context(self.modules[call.function.0].entry))
    }

    fn event(&mut self, device: DeviceIndex) -> Result<Event> {
        let event = self.context(device).event(false)?;
        self.events.push((self.places[device], event));
        Ok(Event(self.events.len() - 1))
    }

    fn record(&mut self, event: Event, stream: Stream) -> Result<()> {
        let (context, raw) = self.stream_of(stream);
        context.record(self.events[event.0].1, raw)
    }

    fn wait(&mut self, stream: Stream, event: Event) -> Result<()> {
        let (context, raw) = self.stream_of(stream);
        context.wait(raw, self.events[event.0].1)
    }

    fn synchronize(&mut self, stream: Stream) -> Result<()> {
        let (context, raw) = self.stream_of(stream);
        context.synchronize(raw)
    }

    fn records(&self) -> bool {
        // A graph over several devices would have to hold the copies between them, which the driver records for some kinds of
        // memory and devices only.
        self.contexts.len() == 1
    }

    fn start_recording(&mut self, stream: Stream) -> Result<()> {
        let (context, raw) = self.stream_of(stream);
        graph::start(context, raw)
    }

    fn stop_recording(&mut self, stream: Stream) -> Result<Recording> {
        let (context, raw) = self.stream_of(stream);
        let graph = graph::stop(context, raw)?;
        self.graphs.push(graph);
        Ok(Recording(self.graphs.len() - 1))
    }

    fn unrecorded(&mut self, error: Error) -> Result<()> {
        // As correct, and not much slower where kernels are long.
        (self.progress)(&format!("steps are issued kernel by kernel, for lack of a graph: {error}"));
        Ok(())
    }

    fn replay(&mut self, stream: Stream, recording: Recording) -> Result<()> {
        let (context, raw) = self.stream_of(stream);
        self.graphs[recording.0].launch(context, raw)
    }

    fn link(&self) -> Option<String> {
        let [there, back] = &self.links[..] else { return None };
        Some(peer::told(there, back))
    }
}

impl Drop for CudaDriver {
    fn drop(&mut self) {
        // What failed before has been reported, and here is nobody to tell.
        for (context, raw) in &self.streams {
            let _ = self.contexts[*context].synchronize(*raw);
        }
        // The context may live on in another user's hands, and would keep it.
        for (address, context) in self.allocated.drain() {
            let _ = self.contexts[context].free(address);
        }
        for graph in self.graphs.drain(..) {
            graph.close();
        }
        for ((from, to), way) in self.ways.drain() {
            way.close(&self.contexts[from], &self.contexts[to]);
        }
        for (i, context) in self.contexts.iter().enumerate() {
            self.uploads[i].close(context);
            let streams: Vec<CUstream> = self.streams.iter().filter(|s| s.0 == i).map(|s| s.1).collect();
            let events: Vec<CUevent> = self.events.iter().filter(|e| e.0 == i).map(|e| e.1).collect();
            context.destroy(&streams, &events);
            for module in self.modules.iter().filter(|module| module.device == context.name) {
                module.unload(context);
            }
        }
    }
}
