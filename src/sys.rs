//! System calls that no crate of ours wraps. Nearly all `unsafe` of the daemon is here.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// Lets a write to a closed pipe end the process, as users of `| head` expect from a command.
pub fn default_sigpipe() {
    // SAFETY: SIG_DFL is a valid disposition, and no handler of ours is replaced.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Makes a write to a closed pipe an error again, for a command that has something to say after it.
pub fn ignore_sigpipe() {
    // SAFETY: SIG_IGN is a valid disposition, and no handler of ours is replaced.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Lets the kernel tell us of the end of children, whatever whoever started us thought of that.
pub fn default_sigchld() {
    // SAFETY: SIG_DFL is a valid disposition, and no handler of ours is replaced.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// The error of the last system call, for wrappers that return -1.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Closes `fd` when this process starts another program.
pub fn set_cloexec(fd: RawFd) -> io::Result<()> {
    // SAFETY: F_SETFD takes an integer; a descriptor that is not open gives EBADF.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }).map(drop)
}

/// Seconds that local time is ahead of UTC at a moment that is given in local time, as seconds since 1970; 0
/// where the C library knows no such time (localtime(3)).
#[allow(clippy::useless_conversion, reason = "time_t and long have 32 bits on some of our targets")]
pub fn local_offset(local_seconds: i64) -> i64 {
    let offset_at = |seconds: i64| {
        let moment = seconds.try_into().ok()?;
        // SAFETY: all zeros is a `tm`.
        let mut fields: libc::tm = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to values that live until the call returns; the result is one of them.
        let found = unsafe { libc::localtime_r(&raw const moment, &raw mut fields) };
        (!found.is_null()).then(|| i64::from(fields.tm_gmtoff))
    };
    let about = offset_at(local_seconds).unwrap_or(0);
    offset_at(local_seconds - about).unwrap_or(about)
}

/// Leaves `fd` open for the program that this process becomes. For a child between fork and exec.
pub fn clear_cloexec(fd: RawFd) -> io::Result<()> {
    // SAFETY: as in `set_cloexec`.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }).map(drop)
}

/// Closes everything but the standard streams when this process becomes another program: what whoever started us left
/// open too. For a child between fork and exec.
pub fn close_others_on_exec() {
    let (first, last) = (3, RawFd::MAX);
    // SAFETY: close_range takes numbers, and closes nothing with this flag.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, CLOSE_RANGE_CLOEXEC) };
    if done < 0 {
        // Before Linux 5.11. What is not open gives an error of no interest.
        for fd in first..MANY_DESCRIPTORS {
            let _ = set_cloexec(fd);
        }
    }
}

/// Puts `fd` at the number `target`, open across exec. For a child between fork and exec.
pub fn move_fd(fd: RawFd, target: RawFd) -> io::Result<()> {
    if fd == target {
        return clear_cloexec(fd);
    }
    // SAFETY: dup2 takes two integers; what was open at `target` is closed, which the caller wants.
    check(unsafe { libc::dup2(fd, target) }).map(drop)
}

/// Names this process for ps(1) and top(1): at most 15 bytes.
pub fn set_process_name(name: &std::ffi::CStr) {
    // SAFETY: PR_SET_NAME reads a string that ends in zero, which `CStr` is.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Ends this process as ctrl-C does, also where whoever started it has that signal ignored, as shells have it in the
/// background.
pub fn end_as_interrupted() {
    // SAFETY: the first call sets what the signal does, and no handler of ours is lost that somebody waits for; the
    // second takes a number.
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_DFL);
        libc::raise(libc::SIGINT);
    }
}

/// Asks the kernel to send `signal` when the thread ends that forked us. For a child between fork and exec;
/// `parent` is the parent's pid, to notice one that ended before the call.
pub fn die_with_parent(signal: libc::c_int, parent: libc::pid_t) -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes an integer; getppid cannot fail.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) })?;
    // SAFETY: as above.
    if unsafe { libc::getppid() } == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
}

/// Ends this process after so many seconds, unless it has become another program: with exec the timer is gone
/// (timer_create(2)). For a child between fork and exec; a kernel without such timers changes nothing.
pub fn end_without_exec(seconds: u8) {
    // SAFETY: all zeros is a `sigevent`, an `itimerspec` and a `timer_t`.
    let (mut event, mut time, mut timer): (libc::sigevent, libc::itimerspec, libc::timer_t) =
        unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = libc::SIGKILL;
    time.it_value.tv_sec = seconds.into();
    // SAFETY: the pointers are to values that live until the calls return; the timer is used only if it was made.
    unsafe {
        if libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) == 0 {
            libc::timer_settime(timer, 0, &raw const time, std::ptr::null_mut());
        }
    }
}

/// Has the kernel ask `filter` about each system call of this thread and of those that it starts (seccomp(2)).
pub fn add_seccomp_filter(filter: &[libc::sock_filter], flags: libc::c_ulong) -> io::Result<()> {
    let len = filter.len().try_into().map_err(io::Error::other)?;
    // The kernel only reads it, whatever the type says.
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: `program` has the address and the length of `filter`, which lives until the call returns.
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives up, for this thread and those that it starts, what programs with the setuid bit give.
pub fn set_no_new_privs() -> io::Result<()> {
    let (yes, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: the call takes numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, unused, unused, unused) }).map(drop)
}

/// Says how willingly the kernel may kill this process when memory runs out (proc_pid_oom_score_adj(5)):
/// -1000 never to 1000 first. Makes no allocation, so that a child may call it between fork and exec.
/// Without the right to, nothing changes.
pub fn set_oom_score(score: &[u8]) {
    // SAFETY: the path is a constant that ends in zero; write reads `score.len()` bytes of `score`;
    // close gets the descriptor that open gave.
    unsafe {
        let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd >= 0 {
            libc::write(fd, score.as_ptr().cast(), score.len());
            libc::close(fd);
        }
    }
}

/// Makes the terminal `fd` the controlling one of this session leader. For a child between fork and exec.
pub fn set_controlling_terminal(fd: RawFd) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer argument.
    check(unsafe { libc::ioctl(fd, libc::TIOCSCTTY, 0) }).map(drop)
}

/// Sets the size of the terminal whose master side is `fd`, which sends SIGWINCH to its foreground group.
pub fn set_window_size(fd: BorrowedFd<'_>, size: &libc::winsize) -> io::Result<()> {
    // SAFETY: TIOCSWINSZ reads one `winsize`, which the reference is.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, std::ptr::from_ref(size)) }).map(drop)
}

/// Gives a pipe room for `bytes`, as far as the system lets us.
pub fn set_pipe_size(fd: BorrowedFd<'_>, bytes: libc::c_int) {
    // SAFETY: F_SETPIPE_SZ takes an integer.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) };
}

/// Sets an integer option of a socket.
pub fn set_socket_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
    // SAFETY: the pointer and the size describe `value`, which lives until the call returns.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(&value).cast(), size) })
        .map(drop)
}

/// Whether the peer of the connected socket `fd` has ended its side or the connection broke.
/// Sees it behind data that nobody has read yet.
pub fn peer_is_gone(fd: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: one pollfd is passed, with a count of one, and no wait.
    unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
}

/// Leaves `fd` open for the program that `command` starts; the caller keeps it open until then.
#[cfg(test)]
pub fn inherit(command: &mut std::process::Command, fd: RawFd) {
    // SAFETY: between fork and exec the closure makes one system call and no allocation.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, move || clear_cloexec(fd)) };
}

/// Tells a watchdog how many seconds to wait for the next sign (the kernel's watchdog-api), and gives what it will wait.
pub fn set_watchdog_timeout(watchdog: &impl AsFd, seconds: libc::c_int) -> io::Result<libc::c_int> {
    // _IOWR('W', 6, int), which most processors spell so; mips, powerpc and sparc do not.
    const WDIOC_SETTIMEOUT: libc::c_ulong = 0xc004_5706;
    let mut seconds = seconds;
    // SAFETY: the call reads and writes the one integer that the pointer is to.
    let done = unsafe { libc::ioctl(watchdog.as_fd().as_raw_fd(), WDIOC_SETTIMEOUT as _, &raw mut seconds) };
    check(done).map(|_| seconds)
}

/// Restarts the machine at once, without telling anybody (reboot(2)); `argument` is for its firmware.
/// Only comes back with an error.
pub fn reboot(argument: Option<&std::ffi::CStr>) -> io::Error {
    let (command, argument) = match argument {
        Some(argument) => (libc::LINUX_REBOOT_CMD_RESTART2, argument.as_ptr()),
        None => (libc::LINUX_REBOOT_CMD_RESTART, std::ptr::null()),
    };
    // SAFETY: the magic numbers are the kernel's; it reads `argument` as a string that ends in zero, which
    // a `CStr` is, and only for RESTART2.
    unsafe {
        let (one, two) = (libc::LINUX_REBOOT_MAGIC1, libc::LINUX_REBOOT_MAGIC2);
        libc::syscall(libc::SYS_reboot, one, two, command, argument);
    }
    io::Error::last_os_error()
}
/// Tells a block device that a range of bytes holds nothing any more.
pub fn discard(device: &impl AsFd, start: u64, length: u64) -> io::Result<()> {
    let range = [start, length];
    // SAFETY: BLKDISCARD reads two 64-bit numbers through its argument and keeps no pointer.
    check(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), BLKDISCARD, range.as_ptr()) }).map(drop)
}

/// Starts writing a range of a file back, without waiting. Only a hint, so that there is no result.
pub fn start_writeback(file: &impl AsFd, offset: u64, length: u64) {
    let (file, flags) = (file.as_fd().as_raw_fd(), libc::SYNC_FILE_RANGE_WRITE);
    // SAFETY: takes numbers only; an invalid range is an error, which is of no interest here.
    unsafe { libc::sync_file_range(file, offset as _, length as _, flags) };
}

/// Announces an update of so many bytes to a UBI volume; the writes that follow are its content.
pub fn ubi_start_update(volume: &impl AsFd, length: i64) -> io::Result<()> {
    // SAFETY: UBI_IOCVOLUP reads one 64-bit number through its argument and keeps no pointer.
    check(unsafe { libc::ioctl(volume.as_fd().as_raw_fd(), UBI_IOCVOLUP, &raw const length) }).map(drop)
}

/// Unmaps the program's code and constants, for a process that comes to rest: its start, or a login, has run
/// through much of the program, and those pages count as its memory for as long as they are mapped. What is
/// needed again comes back from the page cache, 64 KiB around each access. Only a hint, so that there is no
/// result.
pub fn unmap_code() {
    // What fuzzing calls comes to rest a thousand times a second.
    if cfg!(fuzzing) {
        return;
    }
    // SAFETY: the callback has the type that dl_iterate_phdr(3) wants and needs no data.
    unsafe { libc::dl_iterate_phdr(Some(unmap_constant_segments), std::ptr::null_mut()) };
}

/// Gives the kernel back what the start has left free in the heap. glibc keeps it; musl does not.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) touches nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Called for the program first, and ends the iteration before its libraries.
unsafe extern "C" fn unmap_constant_segments(
    info: *mut libc::dl_phdr_info,
    _: libc::size_t,
    _: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: dl_iterate_phdr passes a valid `info`, whose headers lie in the program for as long as it runs.
    let (base, headers) = unsafe {
        ((*info).dlpi_addr, std::slice::from_raw_parts((*info).dlpi_phdr, usize::from((*info).dlpi_phnum)))
    };
    // SAFETY: sysconf takes a number.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(64 << 10);
    let constant =
        headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0);
    for segment in constant {
        // What the segment shares a page with is not ours to touch; between segments may lie anything.
        let start = (base + segment.p_vaddr) as usize;
        let (first, end) = (start.next_multiple_of(page), (start + segment.p_filesz as usize) / page * page);
        let address = std::ptr::with_exposed_provenance_mut(first);
        // SAFETY: the range is mapped from the program's file, whole pages of one segment that nothing can
        // have written to, so the kernel finds the same bytes there again.
        unsafe { libc::madvise(address, end.saturating_sub(first), libc::MADV_DONTNEED) };
    }
    1
}

/// Renames `from` unless `to` exists already, which gives `AlreadyExists`.
pub fn rename_to_new(
    from_folder: BorrowedFd<'_>,
    from: &std::path::Path,
    to_folder: BorrowedFd<'_>,
    to: &std::path::Path,
) -> io::Result<()> {
    let zero_ended = |path: &std::path::Path| {
        std::ffi::CString::new(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))
    };
    let (from_name, to_name) = (zero_ended(from)?, zero_ended(to)?);
    // SAFETY: renameat2 reads two strings that end in zero, which live until it returns.
    let result = unsafe {
        let (from, to) = (from_folder.as_raw_fd(), to_folder.as_raw_fd());
        let flags = libc::RENAME_NOREPLACE;
        libc::syscall(libc::SYS_renameat2, from, from_name.as_ptr(), to, to_name.as_ptr(), flags)
    };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) {
        return Err(error);
    }
    // A file system that cannot: look first, which leaves a moment for somebody else.
    let nofollow = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
    match nix::sys::stat::fstatat(to_folder, to, nofollow) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => Ok(nix::fcntl::renameat(from_folder, from, to_folder, to)?),
    }
}

/// A time as the C library has it, which ends in 2038 on some systems.
#[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions, reason = "32-bit systems")]
// The libc crate says of musl's that it will grow, which is what we want.
#[allow(deprecated)]
pub fn to_time(seconds: i64) -> libc::time_t {
    seconds.try_into().unwrap_or(libc::time_t::MAX)
}

/// A time in seconds since 1970 as this machine's clocks show it.
pub fn local_time(seconds: i64) -> Option<libc::tm> {
    let seconds = to_time(seconds);
    let mut time = std::mem::MaybeUninit::uninit();
    // SAFETY: localtime_r reads one number and fills in the structure, or gives a null pointer.
    let filled = unsafe { libc::localtime_r(&raw const seconds, time.as_mut_ptr()) };
    // SAFETY: it was filled in.
    (!filled.is_null()).then(|| unsafe { time.assume_init() })
}

/// linux/close_range.h
const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
/// Far more than a starter leaves open.
const MANY_DESCRIPTORS: RawFd = 1024;

/// linux/fs.h: `_IO(0x12, 119)`
const BLKDISCARD: libc::Ioctl = libc::_IO(0x12, 119);
/// mtd/ubi-user.h: `_IOW('O', 0, __s64)`
const UBI_IOCVOLUP: libc::Ioctl = libc::_IOW::<i64>(b'O' as u32, 0);
