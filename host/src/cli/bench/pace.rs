//! A timer for the open loop. Tokio's has steps of a millisecond, many times the latency to be measured; on Linux this
//! is a timerfd, elsewhere tokio's after all.

#[cfg(target_os = "linux")]
pub(super) use linux::Timer;
#[cfg(not(target_os = "linux"))]
pub(super) use other::Timer;

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
    use std::time::Duration;

    use tokio::io::unix::AsyncFd;

    /// See the [module](super).
    pub(in super::super) struct Timer(AsyncFd<OwnedFd>);

    impl Timer {
        pub(in super::super) fn new() -> io::Result<Self> {
            // SAFETY: no pointers; the descriptor that comes back is ours alone.
            let descriptor = unsafe {
                let descriptor = libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC);
                if descriptor < 0 {
                    return Err(io::Error::last_os_error());
                }
                OwnedFd::from_raw_fd(descriptor)
            };
            // SAFETY: the descriptor is owned, so it stays open and the same for as long as it is registered.
            let registered = unsafe { AsyncFd::register(descriptor) };
            Ok(Self(registered.map_err(io::Error::from)?))
        }

        /// Sleeps that long, to a few microseconds.
        pub(in super::super) async fn sleep(&mut self, duration: Duration) -> io::Result<()> {
            if duration.is_zero() {
                return Ok(());
            }
            let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            let mut setting = libc::itimerspec { it_interval: zero, it_value: zero };
            setting.it_value.tv_sec = libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX);
            setting.it_value.tv_nsec = libc::c_long::from(duration.subsec_nanos() as i32);
            // SAFETY: `setting` is alive for the call, which does not keep it; the old setting is not asked for.
            let set = unsafe { libc::timerfd_settime(self.0.as_raw_fd(), 0, &setting, std::ptr::null_mut()) };
            if set < 0 {
                return Err(io::Error::last_os_error());
            }
            loop {
                let mut ready = self.0.readable().await?;
                let mut expirations = [0; 8];
                // SAFETY: the buffer is as long as the call is told.
                let read = unsafe { libc::read(self.0.as_raw_fd(), expirations.as_mut_ptr().cast(), 8) };
                let error = io::Error::last_os_error();
                ready.clear_ready();
                if read == 8 {
                    return Ok(());
                }
                if error.kind() != io::ErrorKind::WouldBlock {
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    /// See the [module](super).
    pub(in super::super) struct Timer;

    impl Timer {
        pub(in super::super) fn new() -> std::io::Result<Self> {
            Ok(Self)
        }

        pub(in super::super) async fn sleep(&mut self, duration: std::time::Duration) -> std::io::Result<()> {
            tokio::time::sleep(duration).await;
            Ok(())
        }
    }
}
