//! Emulated CUDA devices: the kernels' own source, compiled by the host's C++ compiler, its threads as fibers. Everything above the driver is
//! the same as for a real device. Shows what is computed, not how fast.
//!
//! | module | about |
//! |---|---|
//! | `block` | threads, barriers, warps; in which `order` they run; their `stack`s |
//! | `build` | from a source to code |
//! | `check` | the checking flavour; `shadow` knows who touched what, `site` where in the sources |
//! | `failure` | what comes of it |
//! | `fault` | wild addresses and the like end a kernel, not the process; so does the `watchdog` where it does not end |
//! | `memory` | a device's addresses |
//! | `recording` | commands recorded once and replayed |
//! | `runtime` | what kernels call |

mod block;
mod build;
mod check;
mod failure;
mod fault;
mod memory;
mod order;
mod recording;
mod runtime;
mod shadow;
mod site;
mod stack;
mod watchdog;

use crate::{
    cache::Cache,
    driver::{Address, Call, DeviceIndex, Driver, Event, Function, Properties, Recording, Rows, Stream},
    program::{self, Program},
};
use alexnode_core::{DeviceName, Error, Result};
pub use block::Asynchronous;
use block::{Job, Worker};
pub use build::Compiler;
use build::{Entry, Kernels};
use check::Check;
use failure::Failure;
use memory::Memory;
pub use order::Order;
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};
use recording::Step;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    ptr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use watchdog::{Pulse, Watchdog};

/// Compute capability that emulated devices claim: the first with asynchronous copies and the tensor-core instructions used here.
pub const COMPUTE: u32 = 80;

/// How the kernels are compiled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// As fast as the host can.
    #[default]
    Fast,
    /// Every access is looked at: bounds, races, memory that nobody wrote. Some fifty times slower.
    Check,
}

/// When the commands of a stream run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Streams {
    /// At once.
    #[default]
    Eager,
    /// As late as is allowed: when somebody waits for them. A missing event shows.
    Late,
}

/// How a device is emulated.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How kernels are compiled.
    pub flavour: Flavour,
    /// In which order threads and blocks run.
    pub order: Order,
    /// When asynchronous copies happen.
    pub asynchronous: Asynchronous,
    /// When the commands of a stream run.
    pub streams: Streams,
    /// Blocks that run at once. Default: as many as the process may use processors; one where a checker looks.
    pub threads: Option<usize>,
    /// Compile kernels for one set of parameters where they ask for it, as for a real device. Slow: a compiler run for each.
    pub specialise: bool,
    /// The longest that a block may compute: whatever does not end by then is taken for endless. Default: a minute.
    pub limit: Option<Duration>,
    /// Kernel sources by their names, besides those of the program.
    pub sources: Vec<(&'static str, &'static str)>,
}

/// Drives emulated devices.
pub struct EmulatedDriver {
    options: Options,
    compiler: Compiler,
    cache: Cache,
    devices: Vec<Properties>,
    memories: Vec<Memory>,
    kernels: HashMap<(&'static str, Vec<String>), Kernels>,
    functions: Vec<Loaded>,
    streams: Vec<Queue>,
    /// Per event: its stream, and how many commands of it must be done.
    events: Vec<(usize, u64)>,
    pool: Option<ThreadPool>,
    workers: Vec<Mutex<Worker>>,
    /// The recording that is being made.
    open: Option<recording::Recording>,
    /// Those that are whole, each with the queues of its streams but the first.
    recordings: Vec<(recording::Recording, HashMap<usize, usize>)>,
    _watchdog: Watchdog,
}

#[derive(Clone, Copy)]
struct Loaded {
    name: &'static str,
    device: DeviceIndex,
    entry: Entry,
}

/// The commands of a stream that have not run yet.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Command>,
    issued: u64,
    done: u64,
}

#[derive(Clone)]
enum Command {
    Write {
        device: DeviceIndex,
        dst: Address,
        data: Vec<u8>,
    },
    Copy(Rows),
    Launch {
        device: DeviceIndex,
        function: Function,
        grid: [u32; 3],
        threads: u32,
        params: Vec<u64>,
        buffers: Vec<Address>,
    },
    /// Until so many commands of another stream are done.
    Wait {
        stream: usize,
        done: u64,
    },
}

impl EmulatedDriver {
    /// Emulates `devices`, one for each entry; the same number twice is the same device.
    ///
    /// # Errors
    /// `ERR_DEVICE` where there is no C++ compiler or the system refuses addresses or threads.
    pub fn new(ordinals: &[usize], options: Options) -> Result<Self> {
        let compiler = Compiler::find()?;
        let available = || std::thread::available_parallelism().map_or(1, usize::from);
        let checked = options.flavour == Flavour::Check;
        let threads = if checked { 1 } else { options.threads.unwrap_or_else(available).max(1) };
        let pool = (threads > 1).then(|| ThreadPoolBuilder::new().num_threads(threads).build()).transpose();
        let pool = pool.map_err(|e| Error::device(format!("emulated: cannot start {threads} threads")).caused_by(e))?;
        let free = alexnode_core::system::free_memory().map_or(usize::MAX, |bytes| bytes as usize);
        let devices = ordinals
            .iter()
            .map(|n| Properties {
                device: DeviceName::Emulated(*n),
                description: format!("emulated sm_{COMPUTE}, {}", compiler.version()),
                compute: COMPUTE,
                memory: (free, free),
            })
            .collect();
        // One name, one memory.
        let memories = ordinals.iter().map(|_| Memory::new()).collect::<Result<_>>()?;
        let refused = |e| Error::device("emulated: cannot reserve addresses or start a thread").caused_by(e);
        let pulses: Vec<Arc<Pulse>> = (0..threads).map(|_| Arc::default()).collect();
        let worker = |pulse: &Arc<Pulse>| {
            let worker = Worker::new(checked.then_some(ordinals.len()), Arc::clone(pulse)).map_err(refused)?;
            Ok(Mutex::new(worker))
        };
        let workers = pulses.iter().map(worker).collect::<Result<_>>()?;
        let limit = options.limit.unwrap_or(Duration::from_secs(60));
        Ok(Self {
            options,
            compiler,
            cache: Cache::of_user(),
            devices,
            memories,
            kernels: HashMap::new(),
            functions: Vec::new(),
            streams: Vec::new(),
            events: Vec::new(),
            pool,
            workers,
            open: None,
            recordings: Vec::new(),
            _watchdog: Watchdog::new(pulses, limit).map_err(refused)?,
        })
    }

    fn issue(&mut self, stream: Stream, command: Command) -> Result<()> {
        match &mut self.open {
            Some(open) => open.push(Step::Issue(stream.index, command)),
            None => self.enqueue(stream.index, command),
        }
    }

    fn enqueue(&mut self, index: usize, command: Command) -> Result<()> {
        let queue = &mut self.streams[index];
        queue.waiting.push_back(command);
        queue.issued += 1;
        match self.options.streams {
            Streams::Eager => self.flush(index, u64::MAX),
            Streams::Late => Ok(()),
        }
    }

    /// Runs the commands of stream `index` until `done` of them are done.
    fn flush(&mut self, index: usize, done: u64) -> Result<()> {
        while self.streams[index].done < done {
            let Some(command) = self.streams[index].waiting.pop_front() else { return Ok(()) };
            self.streams[index].done += 1;
            self.execute(command)?;
        }
        Ok(())
    }

    fn execute(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Write { device, dst, data } => {
                // SAFETY: `upload` checked that the bytes lie in a living allocation.
                unsafe { ptr::copy_nonoverlapping(data.as_ptr(), dst as *mut u8, data.len()) };
                self.checked(|check| check.written(device, dst as usize, data.len()));
            }
            Command::Copy(rows) => {
                for row in 0..rows.rows {
                    let (src, dst) =
                        (rows.src as usize + row * rows.src_pitch, rows.dst as usize + row * rows.dst_pitch);
                    // SAFETY: `copy` checked that all rows lie in living allocations.
                    unsafe { ptr::copy_nonoverlapping(src as *const u8, dst as *mut u8, rows.row_bytes) };
                    self.checked(|check| check.copied((rows.from, src), (rows.to, dst), rows.row_bytes));
                }
            }
            Command::Wait { stream, done } => {
                self.flush(stream, done)?;
            }
            Command::Launch { device, function, grid, threads, params, buffers } => {
                self.run(device, function, grid, threads, &params, &buffers)?;
            }
        }
        Ok(())
    }

    fn run(
        &self,
        device: DeviceIndex,
        function: Function,
        grid: [u32; 3],
        threads: u32,
        params: &[u64],
        buffers: &[Address],
    ) -> Result<()> {
        let Loaded { name, entry, .. } = self.functions[function.0];
        let mut arguments = vec![params.as_ptr() as usize];
        arguments.extend(buffers.iter().map(|address| ptr::from_ref(address) as usize));
        let job = Job {
            entry: name,
            device,
            run: entry.run,
            image: entry.image.0..entry.image.1,
            arguments: &arguments,
            grid,
            threads,
            order: self.options.order,
            asynchronous: self.options.asynchronous,
        };
        let blocks = job.blocks();
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let failure: Mutex<Option<Failure>> = Mutex::new(None);
        self.checked(|check| check.begin_launch(&job));
        let work = |worker: &Mutex<Worker>| {
            let worker = lock(worker);
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= blocks || failed.load(Ordering::Relaxed) {
                    return;
                }
                if let Err(what) = worker.block(&job, job.order.block(i, blocks)) {
                    failed.store(true, Ordering::Relaxed);
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
                    return;
                }
            }
        };
        match &self.pool {
            Some(pool) if blocks > 1 => {
                let workers = &self.workers;
                pool.broadcast(|context| work(&workers[context.index()]));
            }
            _ => work(&self.workers[0]),
        }
        let failure = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
        failure.map_or(Ok(()), |failure| Err(self.explained(device, buffers, failure)))
    }

    /// The error that comes of a failure on `device`.
    fn explained(&self, device: DeviceIndex, buffers: &[Address], failure: Failure) -> Error {
        let mut what = format!("{}: {}", self.devices[device].device, failure.what);
        if let Some(address) = failure.address {
            let home = self.memories.iter().position(|memory| memory.owns(address));
            what.push_str(": ");
            what.push_str(&match home {
                Some(home) if home == device => self.memories[home].whereabouts(address, buffers),
                Some(other) => self.stranger(other),
                None => format!("{address:#x}, which is no address of a device"),
            });
        }
        let error = Error::kernel(what);
        match failure.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    /// Says where another device's memory belongs.
    fn stranger(&self, other: DeviceIndex) -> String {
        format!("in the memory of {} (place {other} of `devices`)", self.devices[other].device)
    }

    /// Tells the checker something, where there is one.
    fn checked(&self, tell: impl FnOnce(&mut Check)) {
        if self.options.flavour == Flavour::Check {
            lock(&self.workers[0]).checked(tell);
        }
    }

    /// An error where these bytes are not in a living allocation of `device`.
    fn check_range(&self, device: DeviceIndex, address: Address, bytes: usize, what: &str) -> Result<()> {
        if bytes == 0 || self.memories[device].holds(address as usize, bytes) {
            return Ok(());
        }
        let home = self.memories.iter().position(|memory| memory.owns(address as usize));
        let name = self.devices[device].device;
        Err(Error::kernel(match home {
            Some(other) if other != device => {
                format!("{name}: {what} lies {}", self.stranger(other))
            }
            Some(_) => format!("{name}: {what}: {bytes} bytes at {address:#x} are not in a living allocation"),
            None => format!("{name}: {what}: {address:#x} is no address of a device"),
        }))
    }

    fn check_rows(&self, rows: &Rows) -> Result<()> {
        if rows.rows == 0 || rows.row_bytes == 0 {
            return Ok(());
        }
        let span = |pitch: usize| (rows.rows - 1) * pitch + rows.row_bytes;
        self.check_range(rows.from, rows.src, span(rows.src_pitch), "the source of a copy")?;
        self.check_range(rows.to, rows.dst, span(rows.dst_pitch), "the target of a copy")
    }
}

fn lock(worker: &Mutex<Worker>) -> MutexGuard<'_, Worker> {
    worker.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Driver for EmulatedDriver {
    fn devices(&self) -> &[Properties] {
        &self.devices
    }

    fn stream(&mut self, device: DeviceIndex) -> Result<Stream> {
        self.streams.push(Queue::default());
        Ok(Stream { device, index: self.streams.len() - 1 })
    }

    fn alloc(&mut self, device: DeviceIndex, bytes: usize) -> Result<Address> {
        let address = self.memories[device].alloc(bytes)?;
        self.checked(|check| check.allocated(device, address as usize, bytes));
        Ok(address)
    }

    fn free(&mut self, device: DeviceIndex, address: Address) -> Result<()> {
        for stream in 0..self.streams.len() {
            self.flush(stream, u64::MAX)?;
        }
        self.memories[device].free(address);
        self.checked(|check| check.freed(device, address as usize));
        Ok(())
    }

    fn upload(&mut self, stream: Stream, dst: Address, src: &[u8]) -> Result<()> {
        self.check_range(stream.device, dst, src.len(), "the target of an upload")?;
        self.issue(stream, Command::Write { device: stream.device, dst, data: src.to_vec() })
    }

    fn download(&mut self, stream: Stream, src: Address, dst: &mut [u8]) -> Result<()> {
        self.check_range(stream.device, src, dst.len(), "the source of a download")?;
        self.synchronize(stream)?;
        // SAFETY: checked above; nothing of this stream is under way.
        unsafe { ptr::copy_nonoverlapping(src as *const u8, dst.as_mut_ptr(), dst.len()) };
        Ok(())
    }

    fn copy(&mut self, stream: Stream, rows: &Rows) -> Result<()> {
        self.check_rows(rows)?;
        self.issue(stream, Command::Copy(*rows))
    }

    fn load(&mut self, device: DeviceIndex, programs: &[Program]) -> Result<Vec<Function>> {
        let key = |program: &Program| (program.source, program.options());
        let missing: HashSet<_> = programs.iter().map(key).filter(|key| !self.kernels.contains_key(key)).collect();
        let build = |key: (&'static str, Vec<String>)| {
            let text = program::text_among(&self.options.sources, key.0)?;
            let built = Kernels::build(&self.compiler, &self.cache, &text, &key.1, self.options.flavour);
            built.map(|built| (key.clone(), built)).map_err(|e| e.context(key.0))
        };
        let built: Result<Vec<_>> = match &self.pool {
            Some(pool) => pool.install(|| missing.into_par_iter().map(build).collect()),
            None => missing.into_iter().map(build).collect(),
        };
        self.kernels.extend(built?);
        let mut functions = Vec::new();
        for program in programs {
            let name = program.entry;
            let entry = self.kernels[&key(program)]
                .entry(name)
                .ok_or_else(|| Error::kernel(format!("{}: no entry {name}", program.source)))?;
            let (params, buffers) = (program.params_bytes, program.buffers);
            if (entry.params_bytes as usize, entry.arguments as usize) != (params, buffers + 1) {
                return Err(Error::kernel(format!(
                    "{name}: has {} arguments after parameters of {} bytes, the launch {buffers} after {params}",
                    entry.arguments - 1,
                    entry.params_bytes,
                )));
            }
            self.functions.push(Loaded { name, device, entry });
            functions.push(Function(self.functions.len() - 1));
        }
        Ok(functions)
    }

    fn launch(&mut self, stream: Stream, call: &Call<'_>) -> Result<()> {
        let Loaded { name, device, .. } = self.functions[call.function.0];
        if device != stream.device {
            return Err(Error::kernel(format!(
                "{name}: loaded on place {device} of `devices`, launched on {}",
                stream.device
            )));
        }
        if call.threads == 0 || call.threads > block::MAX_THREADS || call.grid.contains(&0) {
            return Err(Error::kernel(format!("{name}: {} threads in {:?} blocks", call.threads, call.grid)));
        }
        for (i, address) in call.buffers.iter().enumerate().filter(|(_, address)| **address != 0) {
            self.check_range(device, *address, 1, &format!("{name}: argument {i}"))?;
        }
        let mut params = vec![0u64; call.params.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut params)[..call.params.len()].copy_from_slice(call.params);
        let command = Command::Launch {
            device,
            function: call.function,
            grid: call.grid,
            threads: call.threads,
            params,
            buffers: call.buffers.to_vec(),
        };
        self.issue(stream, command)
    }

    fn event(&mut self, _device: DeviceIndex) -> Result<Event> {
        self.events.push((0, 0));
        Ok(Event(self.events.len() - 1))
    }

    fn record(&mut self, event: Event, stream: Stream) -> Result<()> {
        if let Some(open) = &mut self.open {
            return open.push(Step::Record(event.0, stream.index));
        }
        self.events[event.0] = (stream.index, self.streams[stream.index].issued);
        Ok(())
    }

    fn wait(&mut self, stream: Stream, event: Event) -> Result<()> {
        if let Some(open) = &mut self.open {
            return open.push(Step::Wait(stream.index, event.0));
        }
        let (index, done) = self.events[event.0];
        self.enqueue(stream.index, Command::Wait { stream: index, done })
    }

    fn synchronize(&mut self, stream: Stream) -> Result<()> {
        if self.open.is_some() {
            return Err(Error::kernel("nobody can wait for commands that are only recorded"));
        }
        self.flush(stream.index, u64::MAX)
    }

    fn records(&self) -> bool {
        true
    }

    fn start_recording(&mut self, stream: Stream) -> Result<()> {
        self.open = Some(recording::Recording::new(stream.index));
        Ok(())
    }

    fn stop_recording(&mut self, _stream: Stream) -> Result<Recording> {
        let open = self.open.take().ok_or_else(|| Error::kernel("nothing is being recorded"))?;
        let whole = open.joined()?;
        // Queues of its own: nothing that waits elsewhere holds a graph up, or is held up by it.
        let mut queues = HashMap::new();
        for stream in whole.others() {
            self.streams.push(Queue::default());
            queues.insert(stream, self.streams.len() - 1);
        }
        self.recordings.push((whole, queues));
        Ok(Recording(self.recordings.len() - 1))
    }

    fn replay(&mut self, stream: Stream, recording: Recording) -> Result<()> {
        let (recording, queues) = self.recordings[recording.0].clone();
        let queue = |index: usize| queues.get(&index).copied().unwrap_or(stream.index);
        let mut events = HashMap::new();
        for step in recording.steps {
            match step {
                Step::Issue(index, command) => self.enqueue(queue(index), command)?,
                Step::Record(event, index) => {
                    events.insert(event, (queue(index), self.streams[queue(index)].issued));
                }
                Step::Wait(index, event) => {
                    let (of, done) = events[&event];
                    self.enqueue(queue(index), Command::Wait { stream: of, done })?;
                }
            }
        }
        Ok(())
    }
}
