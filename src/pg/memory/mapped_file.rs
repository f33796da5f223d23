//! A small file in the data directory, mapped into memory: a note is a store, not a write call, and it
//! outlives the process and the shared memory of the server.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use pushy_core::fnv;

/// Maps a file of exactly `size_of::<T>()` bytes, made if need be, for the life of the process. All its
/// blocks are allocated first, so that no store can meet a full disk.
///
/// `T` must be made of atomics and valid for any bytes.
pub fn map<T>(path: &str) -> io::Result<&'static T> {
    let size = size_of::<T>();
    let file: File = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    // SAFETY: an open descriptor; a shared mapping of a file whose blocks exist, never unmapped.
    unsafe {
        if file.metadata()?.len() != size as u64 {
            file.set_len(0)?;
        }
        let code = libc::posix_fallocate(file.as_raw_fd(), 0, size as libc::off_t);
        if code != 0 {
            return Err(io::Error::from_raw_os_error(code));
        }
        let base = libc::mmap(
            std::ptr::null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        );
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(&*base.cast::<T>())
    }
}

/// A number that is new with each boot of the machine: what a file says of before is of no use.
pub fn boot_number() -> u64 {
    let id = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    // The same where the system has no such file, so that a file is trusted across its boots.
    fnv::hash(&id)
}
