//! Commands recorded once and replayed: CUDA graphs, by stream capture.

use super::{context::Context, failure::cuda};
use alexnode_core::Result;
use cudarc::driver::sys::{self, CUgraphExec, CUstream, CUstreamCaptureMode};
use std::ptr;

/// A recorded graph, ready to run.
#[derive(Debug)]
pub(super) struct Graph {
    executable: CUgraphExec,
}

/// From now on `stream`, and every stream that waits for an event of it, records its commands instead of running them.
pub(super) fn start(context: &Context, stream: CUstream) -> Result<()> {
    context.bind()?;
    // Other threads of the process may do what they like meanwhile.
    let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    // SAFETY: the stream lives; it is not the default one.
    unsafe { cuda!(context.name, cuStreamBeginCapture_v2(stream, mode)) }
}

/// Ends the recording. All streams that took part must have been joined: `stream` waits for their last events.
pub(super) fn stop(context: &Context, stream: CUstream) -> Result<Graph> {
    context.bind()?;
    let (mut graph, mut executable) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: both outlive the calls; the graph is destroyed once, what was made from it stays.
    unsafe {
        cuda!(context.name, cuStreamEndCapture(stream, &mut graph))?;
        let made = cuda!(context.name, cuGraphInstantiateWithFlags(&mut executable, graph, 0));
        let _ = sys::cuGraphDestroy(graph);
        made?;
        // So that the first replay is as fast as the others.
        cuda!(context.name, cuGraphUpload(executable, stream))?;
    }
    Ok(Graph { executable })
}

impl Graph {
    /// Runs it on `stream`.
    pub fn launch(&self, context: &Context, stream: CUstream) -> Result<()> {
        context.bind()?;
        // SAFETY: the graph lives until `close`.
        unsafe { cuda!(context.name, cuGraphLaunch(self.executable, stream)) }
    }

    /// Destroys it, nothing of it under way.
    pub fn close(self) {
        // SAFETY: instantiated by `stop`, destroyed once.
        let _ = unsafe { sys::cuGraphExecDestroy(self.executable) };
    }
}
