//! The limit of open files: each connection is one, and most systems begin with 1,024.

/// Raises the limit of open files as far as the system lets us; a failure shows when a connection cannot be opened.
pub(super) fn allow_many_connections() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a pointer to a value that is alive for the call, and keep nothing.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}
