//! Mounts that nobody else sees.

/// Runs `work` on a thread with mounts of its own, which end with it; so have the threads and processes that it starts. What
/// is mounted there is in no copy that others make of the machine's mounts, such as sandboxes: when it is unmounted it is
/// gone.
///
/// # Panics
/// Without root, and when `work` does.
pub fn with_own_mounts(work: impl FnOnce() + Send + 'static) {
    let worker = std::thread::spawn(|| {
        crate::sys::own_mounts()
            .unwrap_or_else(|error| panic!("mounts of a thread's own: {error}; it takes root"));
        work();
    });
    if let Err(panic) = worker.join() {
        std::panic::resume_unwind(panic);
    }
}
