//! A program that a worker starts, at the other end of a socket: with nothing of the server but what it is given.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use pgrx::pg_sys;

use crate::pg::text;

/// The folder of the server's programs.
pub fn folder_of_programs() -> PathBuf {
    // SAFETY: a text of the process, set when it began.
    let own = unsafe { text::from_c(std::ptr::addr_of!(pg_sys::my_exec_path).cast()) };
    Path::new(&own)
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

pub struct Child {
    process: std::process::Child,
    socket: UnixStream,
}

impl Child {
    /// Starts a program whose standard input is the other end of a socket. It has no environment but what is given, which unlike arguments
    /// nobody else on the machine can read, no other descriptor, no more memory than so many bytes, and ends when this process does.
    pub fn start(
        program: &Path,
        environment: &[(String, String)],
        memory: u64,
    ) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        let parent = std::process::id() as libc::pid_t;
        // SAFETY: between fork and exec: system calls only, and no memory is taken. This process has one thread.
        unsafe {
            command.pre_exec(move || leave_server(parent, memory));
        }
        Ok(Self {
            process: command.spawn()?,
            socket: ours,
        })
    }

    /// Sleeps until there is something to read, or room to write, as far as these are asked for, or this process's latch is set, or so
    /// much time has passed. Serves interrupts after waking: before a SIGTERM ends this process the program has `patience` to end.
    pub fn wait(&self, reads: bool, writes: bool, timeout: Duration, patience: Duration) {
        let mut events = pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH | pg_sys::WL_TIMEOUT;
        if reads {
            events |= pg_sys::WL_SOCKET_READABLE;
        }
        if writes {
            events |= pg_sys::WL_SOCKET_WRITEABLE;
        }
        let milliseconds =
            timeout.as_micros().div_ceil(1000).min(i32::MAX as u128) as std::ffi::c_long;
        // SAFETY: MyLatch is this process's own, and the socket is open as long as this lives.
        unsafe {
            pg_sys::WaitLatchOrSocket(
                pg_sys::MyLatch,
                events as i32,
                self.socket.as_raw_fd(),
                milliseconds,
                pg_sys::PG_WAIT_EXTENSION,
            );
            pg_sys::ResetLatch(pg_sys::MyLatch);
        }
        crate::pg::interrupts::forget_cancel();
        crate::pg::interrupts::before_termination(|| self.ask_to_end(patience));
        crate::pg::interrupts::check();
    }

    /// Reads what there is, at most so much; false: the other end is closed.
    pub fn read(&mut self, into: &mut Vec<u8>, most: usize) -> bool {
        let mut some = vec![0; most];
        match self.socket.read(&mut some) {
            Ok(0) => false,
            Ok(length) => {
                into.extend_from_slice(&some[..length]);
                true
            }
            Err(error) => is_later(&error),
        }
    }

    /// Writes what can be written, and takes it off; false: the other end is closed.
    pub fn write(&mut self, from: &mut Vec<u8>) -> bool {
        while !from.is_empty() {
            match self.socket.write(from) {
                Ok(length) => {
                    from.drain(..length);
                }
                Err(error) if is_later(&error) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// Asks it to end, and waits so long for that.
    fn ask_to_end(&self, patience: Duration) {
        const LOOK: Duration = Duration::from_millis(10);
        let pid = self.process.id() as libc::pid_t;
        let mut left = patience;
        // SAFETY: of our child, which was not waited for; it stays for who waits for it.
        unsafe {
            libc::kill(pid, libc::SIGTERM);
            let mut how: libc::siginfo_t = std::mem::zeroed();
            let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            // Bounded by the patience.
            while libc::waitid(libc::P_PID, pid as libc::id_t, &mut how, options) == 0
                && how.si_pid() == 0
                && !left.is_zero()
            {
                std::thread::sleep(LOOK.min(left));
                left = left.saturating_sub(LOOK);
            }
        }
    }

    /// The same, and ends it.
    pub fn stop(&mut self, patience: Duration) {
        if self.ended().is_none() {
            self.ask_to_end(patience);
        }
        if self.ended().is_none() {
            // It may have ended meanwhile; then there is nothing to do.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn done(code: libc::c_int) -> io::Result<()> {
    if code < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// In the child, before the program: system calls only.
fn leave_server(parent: libc::pid_t, memory: u64) -> io::Result<()> {
    let limit = |most: u64| libc::rlimit {
        rlim_cur: most as libc::rlim_t,
        rlim_max: most as libc::rlim_t,
    };
    // SAFETY: system calls on this process alone.
    unsafe {
        // Ctrl-C is for the server.
        done(libc::setsid())?;
        #[cfg(target_os = "linux")]
        {
            done(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            // Neither a debugger nor a core file sees what it knows.
            done(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        }
        if libc::getppid() != parent {
            return Err(io::Error::from(ErrorKind::NotFound));
        }
        done(libc::setrlimit(libc::RLIMIT_DATA, &limit(memory)))?;
        done(libc::setrlimit(libc::RLIMIT_CORE, &limit(0)))?;
        // As many as it may: the server keeps to fewer for reasons of its own, and each connection takes one.
        let mut open_files = limit(0);
        done(libc::getrlimit(libc::RLIMIT_NOFILE, &mut open_files))?;
        open_files.rlim_cur = open_files.rlim_max;
        done(libc::setrlimit(libc::RLIMIT_NOFILE, &open_files))?;
        close_others();
    }
    Ok(())
}

/// Has every descriptor but the first three closed when the program begins.
unsafe fn close_others() {
    const FIRST: libc::c_uint = 3;
    #[cfg(target_os = "linux")]
    {
        const CLOEXEC: libc::c_uint = 4;
        if libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, CLOEXEC) == 0 {
            return;
        }
    }
    let most = libc::sysconf(libc::_SC_OPEN_MAX).clamp(256, 1 << 20) as libc::c_int;
    for descriptor in FIRST as libc::c_int..most {
        libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
    }
}
