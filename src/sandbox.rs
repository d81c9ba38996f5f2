//! What the thread that reads strangers' bytes may not do, whoever has got control of it: start programs, trace other
//! processes, load modules, mount, make memory executable. A seccomp(2) filter, which the threads that it starts for
//! work on disks inherit; programs are started by others (`launch.rs`), which have none.
//!
//! What is refused is named and gives an error. A list of what is allowed would one day lack what a newer C library
//! needs, and that would cost the login.

use std::io;

/// What is refused whatever its arguments. None of it is needed by what serves connections.
const REFUSED: &[u16] = &numbers([
    libc::SYS_execve,
    libc::SYS_execveat,
    #[cfg(not(target_arch = "aarch64"))]
    libc::SYS_fork,
    #[cfg(not(target_arch = "aarch64"))]
    libc::SYS_vfork,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kexec_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    // The same (asm-generic/unistd.h): the libc crate has no name for it with musl.
    #[cfg(target_arch = "aarch64")]
    294,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_by_handle_at,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    libc::SYS_personality,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
]);

/// As short as they are on all processors that there is a filter for.
const fn numbers<const COUNT: usize>(long: [libc::c_long; COUNT]) -> [u16; COUNT] {
    let (mut short, mut at) = ([0; COUNT], 0);
    while at < COUNT {
        short[at] = long[at] as u16;
        at += 1;
    }
    short
}

/// Refuses it all to this thread and to those that it starts, for good.
pub fn enter() -> io::Result<()> {
    let filter = filter()?;
    // Without this flag the kernels before 5.16 slow down the whole thread, against its own code (spectre).
    let mut done = crate::sys::add_seccomp_filter(&filter, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW);
    let failed = |done: &io::Result<()>, code| done.as_ref().is_err_and(|e| e.raw_os_error() == Some(code));
    if failed(&done, libc::EINVAL) {
        // Before Linux 4.17.
        done = crate::sys::add_seccomp_filter(&filter, 0);
    }
    if failed(&done, libc::EACCES) {
        // Who is not root has to give up what programs can give him. Those are started by other threads.
        crate::sys::set_no_new_privs()?;
        done = crate::sys::add_seccomp_filter(&filter, 0);
    }
    done
}

/// The filter in the kernel's language (classic BPF).
fn filter() -> io::Result<Vec<libc::sock_filter>> {
    let processor = AUDIT_ARCH.ok_or(io::ErrorKind::Unsupported)?;
    let no = refuse(libc::EPERM);
    // The numbers below are those of one processor; the kernel may know another one's, too.
    let mut filter = vec![load(ARCH), jump(libc::BPF_JEQ, processor, 1, 0), no, load(0)];
    if cfg!(target_arch = "x86_64") {
        filter.extend([jump(libc::BPF_JGE, X32_BIT, 0, 1), no]);
    }
    let mut call = |number: libc::c_long, answer: &[libc::sock_filter]| {
        filter.push(jump(libc::BPF_JEQ, number as u32, 0, answer.len() as u8));
        filter.extend(answer);
    };
    for number in REFUSED {
        call((*number).into(), &[no]);
    }
    // Its arguments cannot be seen. C libraries then take clone.
    call(libc::SYS_clone3, &[refuse(libc::ENOSYS)]);
    let is_thread = jump(libc::BPF_JSET, libc::CLONE_THREAD as u32, 1, 0);
    call(libc::SYS_clone, &[load(argument(0)), is_thread, no, ALLOW]);
    let is_executable = jump(libc::BPF_JSET, libc::PROT_EXEC as u32, 0, 1);
    for number in [libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        call(number, &[load(argument(2)), is_executable, no, ALLOW]);
    }
    // Files may be mapped so: the C library has modules.
    let is_anonymous = jump(libc::BPF_JSET, libc::MAP_ANONYMOUS as u32, 0, 3);
    call(MMAP, &[load(argument(3)), is_anonymous, load(argument(2)), is_executable, no, ALLOW]);
    filter.push(ALLOW);
    Ok(filter)
}

/// Goes on so many instructions later, as the comparison with `value` says.
fn jump(comparison: u32, value: u32, if_true: u8, if_false: u8) -> libc::sock_filter {
    let code = (libc::BPF_JMP | libc::BPF_K | comparison) as u16;
    libc::sock_filter { code, jt: if_true, jf: if_false, k: value }
}

/// Takes four bytes of `struct seccomp_data`.
fn load(offset: u32) -> libc::sock_filter {
    let code = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    libc::sock_filter { code, jt: 0, jf: 0, k: offset }
}

/// Where the lower half of an argument is, on processors that have it first.
fn argument(number: u32) -> u32 {
    16 + 8 * number
}

fn refuse(code: libc::c_int) -> libc::sock_filter {
    libc::sock_filter { k: libc::SECCOMP_RET_ERRNO | code as u32, ..ALLOW }
}

const ALLOW: libc::sock_filter = libc::sock_filter {
    code: (libc::BPF_RET | libc::BPF_K) as u16,
    jt: 0,
    jf: 0,
    k: libc::SECCOMP_RET_ALLOW,
};
/// Where `struct seccomp_data` says whose numbers it has.
const ARCH: u32 = 4;
/// linux/audit.h; `None` for processors that nobody has tried this on.
const AUDIT_ARCH: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(all(target_arch = "aarch64", target_endian = "little")) {
    Some(0xc000_00b7)
} else if cfg!(all(target_arch = "arm", target_endian = "little")) {
    Some(0x4000_0028)
} else {
    None
};
/// Above are numbers of another kind (asm/unistd.h).
const X32_BIT: u32 = 0x4000_0000;
#[cfg(target_arch = "arm")]
const MMAP: libc::c_long = libc::SYS_mmap2;
#[cfg(not(target_arch = "arm"))]
const MMAP: libc::c_long = libc::SYS_mmap;

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "these threads are of the test alone")]
mod tests {
    use super::*;

    fn code() -> Option<i32> {
        io::Error::last_os_error().raw_os_error()
    }

    /// Asks for a page of memory, of a file or of none.
    fn map(protection: libc::c_int, file: libc::c_int) -> *mut libc::c_void {
        let flags = libc::MAP_PRIVATE | if file < 0 { libc::MAP_ANONYMOUS } else { 0 };
        // SAFETY: a new mapping, which touches nothing that is there.
        unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, file, 0) }
    }

    #[test]
    fn what_an_intruder_wants_is_refused_and_the_rest_goes_on() {
        let sandboxed = || {
            if let Err(error) = enter() {
                return eprintln!("not tested: {error}");
            }
            let started = std::process::Command::new("/bin/true").spawn();
            assert_eq!(started.unwrap_err().raw_os_error(), Some(libc::EPERM));
            // Those that make a process of their own are tried above.
            let makes_a_process = |number: libc::c_long| match number {
                #[cfg(not(target_arch = "aarch64"))]
                libc::SYS_fork | libc::SYS_vfork => true,
                _ => false,
            };
            for number in REFUSED.iter().filter(|number| !makes_a_process((**number).into())) {
                // SAFETY: with arguments of zero all of them are errors or without effect here.
                let done = unsafe { libc::syscall((*number).into(), 0, 0, 0, 0, 0, 0) };
                assert_eq!((done, code()), (-1, Some(libc::EPERM)), "system call {number}");
            }
            let (read_write, execute) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::PROT_READ | libc::PROT_EXEC);
            assert_eq!(map(execute, -1), libc::MAP_FAILED);
            let page = map(read_write, -1);
            assert_ne!(page, libc::MAP_FAILED);
            // SAFETY: the page is ours.
            unsafe {
                assert_eq!(libc::mprotect(page, 4096, execute), -1);
                assert_eq!(libc::mprotect(page, 4096, libc::PROT_READ), 0);
            }
            // What the C library does for a module of its own.
            let file = std::fs::File::open("/bin/sh").unwrap();
            assert_ne!(map(execute, std::os::fd::AsRawFd::as_raw_fd(&file)), libc::MAP_FAILED);
            #[cfg(target_env = "gnu")]
            // SAFETY: a library of the C library's own, without any code that runs when it is loaded.
            assert!(!unsafe { libc::dlopen(c"libBrokenLocale.so.1".as_ptr(), libc::RTLD_NOW) }.is_null());
            let child = std::thread::spawn(|| std::process::Command::new("/bin/true").spawn().is_err());
            assert!(child.join().unwrap(), "a thread has what who started it has");
        };
        std::thread::spawn(sandboxed).join().unwrap();
        assert!(std::process::Command::new("/bin/true").status().unwrap().success(), "others go on");
    }
}
