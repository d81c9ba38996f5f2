//! A place with users of its own: a mount namespace, so that those of the machine stay as they are.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Device, new_folder};

/// Of `secret`, made by `openssl passwd -6`.
pub const HASH: &str =
    "$6$saltsaltsalt$PMWE8DTlam1JU37Piyk43bHcMxTJq6sgu5DKB0/tGPjanN35jcY68QkpDfPFUGPWX5uCxIQkSPzMmqEiVNgts.";
const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
sshd:x:105:65534::/run/sshd:/usr/sbin/nologin
ada:x:2001:2001:Ada:/home/ada:/bin/sh
bob:x:2002:2002:Bob:/home/bob:/bin/bash
files:x:2003:2003::/home/files:/usr/sbin/nologin
locked:x:2004:2004::/home/locked:/bin/sh
homeless:x:2005:2005::/home/nowhere:/bin/sh
crypt:x:2006:2006::/home/crypt:/bin/sh
false:x:2007:2007::/home/false:/bin/false
nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin
";
const GROUP: &str = "\
root:x:0:
tty:x:5:
ada:x:2001:
bob:x:2002:
files:x:2003:
locked:x:2004:
homeless:x:2005:
crypt:x:2006:
false:x:2007:
readers:x:2100:ada,bob
writers:x:2101:ada
nogroup:x:65534:
";
pub const ADA: u32 = 2001;
pub const BOB: u32 = 2002;

/// Makes the place and becomes the daemon in it. `$1` is the folder of the device.
const SCRIPT: &str = "\
here=$1; shift
mount --make-rprivate / &&
for file in passwd group shadow; do mount --bind $here/$file /etc/$file || exit; done &&
mount -t tmpfs -o mode=755 none /home &&
for user in ada bob files locked crypt false; do
  mkdir -p /home/$user/.ssh && chmod 700 /home/$user /home/$user/.ssh && chown -R $user:$user /home/$user || exit
done";

/// A daemon in such a place, after `more_script`; `None` without the rights that it takes.
pub fn place(more_script: &str, more_ssh: &str, rest: &str) -> Option<Device> {
    if !Command::new("unshare").args(["-m", "true"]).output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: users of the system are not tested, this needs root");
        return None;
    }
    let (folder, public) = new_folder();
    let here = folder.path().to_str().unwrap().to_owned();
    // Those users have to get through.
    fs::set_permissions(&here, fs::Permissions::from_mode(0o755)).unwrap();
    let shadow = format!(
        "root:*:::::::\nada:{HASH}:::::::\nbob:*:::::::\nlocked:!{HASH}:::::::\ncrypt:$y$j9T$a$b:::::::\n"
    );
    for (name, content) in [("passwd", PASSWD), ("group", GROUP), ("shadow", &shadow)] {
        fs::write(folder.path().join(name), content).unwrap();
    }
    fs::set_permissions(folder.path().join("shadow"), fs::Permissions::from_mode(0o600)).unwrap();
    let script = format!("{SCRIPT}\n{more_script}\nexec \"$@\"");
    let wrapper = ["unshare", "-m", "sh", "-c", &script, "sh", &here];
    let device = Device::start_wrapped(folder, &wrapper, &public, more_ssh, rest);
    device.wait_until_it_answers();
    Some(device)
}

pub fn system(more_ssh: &str) -> Option<Device> {
    place("", &format!("user_mode = \"system\"\n{more_ssh}"), "")
}

/// Where the files of a place are for us.
pub fn inside(device: &Device, path: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root{path}", device.daemon.id()))
}

/// `ssh USER@…` by a port, to be completed with a command.
pub fn ssh(device: &Device, port: u16, user: &str, options: &[&str]) -> Command {
    let mut command = device.ssh_with(&[&["-l", user, "-p", &port.to_string()], options].concat());
    command.stdin(Stdio::null()).env_remove("SSH_AUTH_SOCK");
    command
}

/// `ssh USER@… id -un` with this key alone.
pub fn by_key(device: &Device, port: u16, user: &str, key: &Path) -> Command {
    let key = format!("IdentityFile={}", key.display());
    // The device's own key would be tried too.
    let mut command = Command::new("ssh");
    command.args(["-F", "none", "-o", &key]);
    let others = device.ssh_options();
    command.args(others.iter().skip(4)).args([
        "-p",
        &port.to_string(),
        &format!("{user}@127.0.0.1"),
        "id -un",
    ]);
    command.stdin(Stdio::null()).env_remove("SSH_AUTH_SOCK");
    command
}
