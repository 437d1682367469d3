//! Faults of kernels: a wild address, a stack that overflows, a division by zero, a kernel that does not end. The fiber ends, the process
//! goes on.
//!
//! The handlers belong to the process, so they keep to themselves: they act only on a thread that runs a fiber at that moment, on that fiber's
//! stack. Everything else goes to the handler that was there before, such as that of a JavaScript engine which expects faults of its own.

use corosensei::trap::CoroutineTrapHandler;
use std::{
    cell::Cell,
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// How a fiber ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The thread of the kernel returned.
    Returned,
    /// It was stopped.
    Trapped,
}

/// Why a fiber was stopped.
#[derive(Clone, Copy, Debug)]
pub enum Cause {
    /// It touched what it may not.
    Address(usize),
    /// It divided by zero.
    Division,
    /// It came to an instruction that means the compiler knew better.
    Instruction,
    /// It ran for too long.
    Endless,
}

/// A fiber that was stopped.
#[derive(Clone, Copy, Debug)]
pub struct Trap {
    /// Why.
    pub cause: Cause,
    /// The instruction.
    pub at: usize,
}

/// What a handler has to know of the fiber that runs.
#[derive(Clone, Copy)]
struct Guard {
    handler: CoroutineTrapHandler<End>,
    /// Set by who wants the fiber to stop.
    stop: *const AtomicBool,
    /// Where the kernel's instructions lie: only there a fiber may be stopped at any moment.
    image: (usize, usize),
}

thread_local! {
    // None needs to be made or dropped, so a handler may look at them.
    static GUARD: Cell<Option<Guard>> = const { Cell::new(None) };
    static TRAP: Cell<Option<Trap>> = const { Cell::new(None) };
    /// Urgent signals since the fiber was resumed.
    static URGENT: Cell<u32> = const { Cell::new(0) };
}

/// So many urgent signals stop a fiber. Before, whatever it asks of the emulator stops it, too, and knows its place better.
const INSIST: u32 = 3;

/// Runs `resume`, which resumes the fiber of `handler`, and tells what stopped it. From `image`, while `stop` is set, urgent signals stop it, too.
pub fn guarded<R>(
    handler: CoroutineTrapHandler<End>,
    stop: &AtomicBool,
    image: &Range<usize>,
    resume: impl FnOnce() -> R,
) -> (R, Option<Trap>) {
    URGENT.set(0);
    GUARD.set(Some(Guard { handler, stop, image: (image.start, image.end) }));
    let result = resume();
    GUARD.set(None);
    (result, TRAP.take())
}

/// Makes the calling thread ready for [`guarded`], and installs the handlers the first time.
pub fn prepare() {
    system::prepare();
}

/// Sends the urgent signal to a thread of this process.
pub fn interrupt(thread: Thread) {
    system::interrupt(thread);
}

/// The calling thread, for [`interrupt`].
pub fn this_thread() -> Thread {
    system::this_thread()
}

/// What a thread has computed so far, as time.
pub fn computed(thread: Thread) -> Duration {
    system::computed(thread)
}

pub use system::Thread;

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod system {
    use super::{Cause, Duration, End, GUARD, INSIST, Ordering, TRAP, Trap, URGENT};
    use libc::{c_int, c_void, sigaction, siginfo_t, ucontext_t};
    use std::{
        cell::RefCell,
        mem,
        ptr::{self, null_mut},
        sync::OnceLock,
    };

    pub type Thread = libc::pthread_t;

    /// The default action of the last is to do nothing, so that one which comes too late does no harm.
    const SIGNALS: [c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGURG];

    /// The handlers that were there before.
    static PREVIOUS: OnceLock<[sigaction; SIGNALS.len()]> = OnceLock::new();

    /// Handlers need a stack of their own: a fiber's may be what is full.
    const STACK: usize = 64 * 1024;

    /// The stack for handlers of a thread that had none.
    struct HandlerStack(#[allow(dead_code, reason = "the system holds its address")] Box<[u8]>);

    impl Drop for HandlerStack {
        fn drop(&mut self) {
            let none = libc::stack_t { ss_sp: null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
            // SAFETY: takes back what `new` gave.
            unsafe { libc::sigaltstack(&none, null_mut()) };
        }
    }

    impl HandlerStack {
        fn new() -> Option<Self> {
            // SAFETY: all zeros is a value of this plain struct.
            let mut present: libc::stack_t = unsafe { mem::zeroed() };
            // SAFETY: asks for the stack of this thread.
            let asked = unsafe { libc::sigaltstack(ptr::null(), &mut present) };
            if asked != 0 || present.ss_flags & libc::SS_DISABLE == 0 {
                return None;
            }
            let mut memory = vec![0; STACK].into_boxed_slice();
            let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK };
            // SAFETY: the memory lives until `drop` takes it back on this thread.
            unsafe { libc::sigaltstack(&stack, null_mut()) };
            Some(Self(memory))
        }
    }

    pub fn prepare() {
        thread_local! {
            static STACK: RefCell<Option<Option<HandlerStack>>> = const { RefCell::new(None) };
        }
        STACK.with(|stack| {
            stack.borrow_mut().get_or_insert_with(HandlerStack::new);
        });
        PREVIOUS.get_or_init(|| {
            let previous = SIGNALS.map(|signal| {
                // SAFETY: all zeros is a value of this plain struct.
                let mut action: sigaction = unsafe { mem::zeroed() };
                // SAFETY: only asks.
                unsafe { sigaction(signal, ptr::null(), &mut action) };
                action
            });
            for signal in SIGNALS {
                // SAFETY: as above.
                let mut action: sigaction = unsafe { mem::zeroed() };
                action.sa_sigaction = on_signal as unsafe extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
                // SAFETY: the handler does only what a handler may do.
                unsafe { sigaction(signal, &action, null_mut()) };
            }
            previous
        });
    }

    pub fn this_thread() -> Thread {
        // SAFETY: always succeeds.
        unsafe { libc::pthread_self() }
    }

    pub fn interrupt(thread: Thread) {
        // SAFETY: the caller holds a thread that lives.
        unsafe { libc::pthread_kill(thread, libc::SIGURG) };
    }

    pub fn computed(thread: Thread) -> Duration {
        let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
        // SAFETY: the caller holds a thread that lives; both write to a variable of their type.
        let known = unsafe {
            libc::pthread_getcpuclockid(thread, &mut clock) == 0 && libc::clock_gettime(clock, &mut time) == 0
        };
        if known { Duration::new(time.tv_sec as u64, time.tv_nsec as u32) } else { Duration::ZERO }
    }

    unsafe extern "C" fn on_signal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
        // SAFETY: what the system hands to a handler with SA_SIGINFO.
        let (info_of, registers) = unsafe { (&*info, &mut (*context.cast::<ucontext_t>()).uc_mcontext) };
        if !end_fiber(signal, info_of, registers) {
            // SAFETY: passes on what came.
            unsafe { pass_on(signal, info, context) };
        }
    }

    /// Makes the fiber of this thread end once the handler returns, if the signal is its fault.
    fn end_fiber(signal: c_int, info: &siginfo_t, registers: &mut libc::mcontext_t) -> bool {
        let Some(guard) = GUARD.get() else { return false };
        let (at, stack) = position(registers);
        if !guard.handler.stack_ptr_in_bounds(stack) {
            return false;
        }
        let cause = match signal {
            libc::SIGURG => {
                // SAFETY: belongs to the worker that runs this fiber.
                let stop = unsafe { (*guard.stop).load(Ordering::Relaxed) };
                if !stop {
                    return false;
                }
                URGENT.set(URGENT.get() + 1);
                // Outside of the kernel it may hold a lock. Whoever set `stop` tries again.
                if URGENT.get() < INSIST || !(guard.image.0..guard.image.1).contains(&at) {
                    return true;
                }
                Cause::Endless
            }
            // Sent by somebody.
            _ if info.si_code <= 0 => return false,
            libc::SIGFPE => Cause::Division,
            libc::SIGILL => Cause::Instruction,
            // SAFETY: these signals have an address.
            _ => Cause::Address(unsafe { info.si_addr() } as usize),
        };
        TRAP.set(Some(Trap { cause, at }));
        // SAFETY: the fiber runs (there is a guard), on its own stack (checked above), and `leave` changes the registers as asked.
        unsafe { leave(registers, guard.handler.setup_trap_handler(|| End::Trapped)) };
        true
    }

    /// Does what would have been done without this module.
    unsafe fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
        let place = SIGNALS.iter().position(|s| *s == signal);
        let Some(previous) = PREVIOUS.get().zip(place).map(|(actions, i)| &actions[i]) else { return };
        match previous.sa_sigaction {
            libc::SIG_DFL | libc::SIG_IGN if signal == libc::SIGURG => {}
            libc::SIG_DFL | libc::SIG_IGN => {
                // SAFETY: restores what was there. A fault happens again when the handler returns; what somebody sent is sent again.
                unsafe {
                    sigaction(signal, previous, null_mut());
                    if (*info).si_code <= 0 {
                        libc::raise(signal);
                    }
                }
            }
            handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
                // SAFETY: a handler of this type, as its flags say.
                let handler: unsafe extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                    unsafe { mem::transmute(handler) };
                // SAFETY: gets what the system handed over.
                unsafe { handler(signal, info, context) };
            }
            handler => {
                // SAFETY: as above.
                let handler: unsafe extern "C" fn(c_int) = unsafe { mem::transmute(handler) };
                // SAFETY: as above.
                unsafe { handler(signal) };
            }
        }
    }

    /// Where it is, and its stack.
    #[cfg(target_arch = "x86_64")]
    fn position(registers: &libc::mcontext_t) -> (usize, usize) {
        let register = |i: c_int| registers.gregs[i as usize] as usize;
        (register(libc::REG_RIP), register(libc::REG_RSP))
    }

    #[cfg(target_arch = "x86_64")]
    fn leave(registers: &mut libc::mcontext_t, to: corosensei::trap::TrapHandlerRegs) {
        let values = [
            (libc::REG_RIP, to.rip),
            (libc::REG_RSP, to.rsp),
            (libc::REG_RBP, to.rbp),
            (libc::REG_RDI, to.rdi),
            (libc::REG_RSI, to.rsi),
        ];
        for (register, value) in values {
            registers.gregs[register as usize] = value as i64;
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn position(registers: &libc::mcontext_t) -> (usize, usize) {
        (registers.pc as usize, registers.sp as usize)
    }

    #[cfg(target_arch = "aarch64")]
    fn leave(registers: &mut libc::mcontext_t, to: corosensei::trap::TrapHandlerRegs) {
        (registers.pc, registers.sp) = (to.pc, to.sp);
        for (register, value) in [(0, to.x0), (1, to.x1), (29, to.x29), (30, to.lr)] {
            registers.regs[register] = value;
        }
    }
}

/// Elsewhere a fault of a kernel is one of the process, and nobody stops a kernel that does not end.
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod system {
    pub type Thread = ();
    pub fn prepare() {}
    pub fn interrupt(_thread: Thread) {}
    pub fn computed(_thread: Thread) -> std::time::Duration {
        std::time::Duration::ZERO
    }
    pub fn this_thread() -> Thread {}
}
