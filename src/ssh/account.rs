//! The user of the system that somebody logs in as, whose rights his sessions have (`user_mode`).
//!
//! passwd(5), group(5) and shadow(5) are read here, which may block: `Person::look_up` belongs beside the work. They
//! are never written.

use std::ffi::{CStr, CString, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::unistd::{Gid, Group, Uid, User, chdir, geteuid};
use tokio::time::{sleep, timeout};

use super::authorized_keys::{self, KeyList};
use super::passwords::{Users, shadow};
use super::server::{Settings, lock};
use crate::config::{Config, DEFAULT_SHELL, Ssh, UserMode, check_user_name};
use crate::tasks::aside;

/// As whom sessions run, or why they cannot.
pub type Found = Result<Arc<Account>, &'static str>;

/// What there is to be known about the owner of a name before he has shown anything.
#[derive(Clone)]
pub struct Person {
    pub account: Found,
    /// Those of his own files, which open nothing else.
    pub keys: Arc<KeyList>,
    /// Whether a password can let anybody in, where that takes a look at the users of the system.
    pub passwords: Option<bool>,
}

impl Person {
    /// Nobody has given a name yet.
    pub fn unnamed() -> Self {
        Self { account: Err("no user is named"), keys: Arc::default(), passwords: None }
    }

    /// Whether all that is to be known is who we are.
    pub fn is_known(ssh: &Ssh) -> bool {
        ssh.user_mode == UserMode::Single && ssh.run_as.is_none() && !authorized_keys::are_personal(ssh)
    }

    /// Whoever he is, his sessions are ours.
    pub fn like_us() -> Self {
        Self { account: Ok(Arc::new(Account::current())), keys: Arc::default(), passwords: None }
    }

    /// Looks everything up, for an unknown name as well, so that both take as long.
    pub fn look_up(config: &Config, name: &str) -> Self {
        let ssh = &config.ssh;
        let is_system = ssh.user_mode == UserMode::System;
        let account = match (&ssh.run_as, is_system) {
            (_, true) => Account::of_login(ssh, name),
            (Some(user), false) => find(user).ok_or(NO_RUN_AS).and_then(Account::new),
            (None, false) => Ok(Account::current()),
        };
        let passwords = is_system.then(|| Users::collect(config).any(|name| find(name).is_some()));
        Self { account: account.map(Arc::new), keys: Arc::default(), passwords }
    }

    /// Adds the keys of his own files. A home folder may be on a disk that does not answer, and strangers can name its
    /// user as often as they like: so it gets little time and few threads, and whoever has another key gets in without.
    pub async fn with_own_keys(mut self, settings: &Arc<Settings>, name: &str) -> Self {
        let (settings, name) = (Arc::clone(settings), name.to_owned());
        let (uid, gid, home) = match &self.account {
            Ok(account) => (account.uid, account.gid, account.home.clone()),
            Err(_) => (NOBODY.0, NOBODY.1, NOWHERE.into()),
        };
        let Ok(place) = timeout(PATIENCE, Reader::begin(home)).await else { return self };
        let reading = aside(move || KeyList::of_user(&settings.config, &name, uid, gid, &place.0));
        if let Ok(Ok(keys)) = timeout(PATIENCE, reading).await {
            self.keys = Arc::new(keys);
        }
        self
    }
}

/// Whoever reads in a home folder, until it is dropped.
struct Reader(OsString);

static READERS: Mutex<Vec<OsString>> = Mutex::new(Vec::new());

impl Reader {
    /// Waits while there are too many of them, or of one folder.
    async fn begin(home: OsString) -> Self {
        while !Self::may_begin(&home) {
            sleep(POLL).await;
        }
        Self(home)
    }

    /// Counts one more, if there may be.
    fn may_begin(home: &OsString) -> bool {
        let mut readers = lock(&READERS);
        let may =
            readers.len() < MAX_READERS && readers.iter().filter(|other| *other == home).count() < MAX_OF_ONE;
        if may {
            readers.push(home.clone());
        }
        may
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut readers = lock(&READERS);
        if let Some(at) = readers.iter().position(|home| *home == self.0) {
            readers.swap_remove(at);
        }
    }
}

/// A user of the system.
#[derive(Clone, Debug)]
pub struct Account {
    pub name: String,
    pub uid: Uid,
    pub gid: Gid,
    pub home: OsString,
    /// The login shell, where it is passwd(5) that says which.
    pub shell: Option<String>,
    /// What its programs take on; `None` where they have it from us.
    pub rights: Option<Rights>,
}

impl Account {
    /// The user that the daemon runs as: root on a device.
    pub fn current() -> Self {
        let user = User::from_uid(geteuid()).ok().flatten();
        let name = user.as_ref().map_or_else(|| "root".into(), |user| user.name.clone());
        let home = user.map_or_else(|| "/".into(), |user| user.dir.into_os_string());
        Self { name, uid: geteuid(), gid: nix::unistd::getegid(), home, shell: None, rights: None }
    }

    /// The user of this name, if the system lets it log in.
    fn of_login(ssh: &Ssh, name: &str) -> Result<Self, &'static str> {
        let found = find(name);
        let exists = found.is_some();
        // All is done for an unknown name that is done for others, so that it takes as long.
        let user = found.or_else(|| User::from_uid(geteuid()).ok().flatten()).ok_or(NO_USER)?;
        let of_passwd = user.passwd.to_string_lossy();
        let of_shadow = shadow::read();
        let entry = of_shadow.iter().find(|(name, _)| *name == user.name);
        let password = entry.map_or(&*of_passwd, |(_, hash)| hash.expose());
        let is_locked = password.starts_with('!');
        let shell = user.shell.to_string_lossy().into_owned();
        let account = Self::new(user);
        match (exists, is_locked, account) {
            (false, _, _) => Err(NO_USER),
            // As sshd without PAM.
            (true, true, _) => Err("the account is locked: its password in /etc/shadow begins with `!`"),
            (true, false, account) => {
                let mut account = account?;
                if ssh.shell.is_none() {
                    account.shell = Some(if shell.is_empty() { DEFAULT_SHELL.into() } else { shell });
                }
                Ok(account)
            }
        }
    }

    fn new(user: User) -> Result<Self, &'static str> {
        let ours = geteuid();
        if !ours.is_root() && user.uid != ours {
            return Err("the daemon does not run as root, so sessions have its own user only");
        }
        let rights = if ours.is_root() { Some(Rights::of(&user)?) } else { None };
        let (name, uid, gid) = (user.name, user.uid, user.gid);
        Ok(Self { name, uid, gid, home: user.dir.into_os_string(), shell: None, rights })
    }

    /// Whether it may have done by us what takes our rights.
    pub fn is_ours(&self) -> bool {
        self.rights.is_none() || self.uid.is_root()
    }

    /// Whether it may update the firmware. Where a name stands for nobody, whoever gets in may.
    pub fn may_update(&self, ssh: &Ssh) -> bool {
        ssh.user_mode == UserMode::Single || self.is_ours() || ssh.firmware_users.contains(&self.name)
    }

    /// What makes a program its own, in its home folder where that can be entered, else in `/`: a missing one must not keep
    /// anybody out. For a child between fork and exec: what is returned makes system calls only, and none is made
    /// before, because home folders may be on disks that do not answer.
    pub fn taker(&self) -> impl Fn() -> io::Result<()> + Send + Sync + use<> {
        let rights = self.rights.clone();
        let home = CString::new(self.home.as_bytes()).unwrap_or_else(|_| c"/".into());
        move || match &rights {
            Some(rights) => rights.take_on(&home),
            None => chdir(home.as_c_str()).or_else(|_| chdir(c"/")).map_err(Into::into),
        }
    }
}

/// What makes a program that of its user. Found before the fork, because after it nothing may be looked up.
#[derive(Clone, Debug)]
pub struct Rights {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    /// The group of terminals, if there is one.
    tty: Option<Gid>,
    /// What is said where the home folder cannot be entered.
    complaint: String,
}

impl Rights {
    fn of(user: &User) -> Result<Self, &'static str> {
        let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| "passwd(5) has a zero byte");
        let name = text(user.name.as_bytes())?;
        let groups = nix::unistd::getgrouplist(&name, user.gid).map_err(|_| "its groups cannot be found")?;
        let tty = Group::from_name("tty").ok().flatten().map(|group| group.gid);
        let complaint = format!("myelin: cannot enter the home folder {}\n", user.dir.display());
        Ok(Self { uid: user.uid, gid: user.gid, groups, tty, complaint })
    }

    /// Takes them on for good. For a child between fork and exec: makes system calls only.
    fn take_on(&self, home: &CStr) -> io::Result<()> {
        crate::sys::close_others_on_exec();
        nix::unistd::setgroups(&self.groups)?;
        nix::unistd::setresgid(self.gid, self.gid, self.gid)?;
        nix::unistd::setresuid(self.uid, self.uid, self.uid)?;
        if !self.uid.is_root() && nix::unistd::setuid(Uid::from_raw(0)).is_ok() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if chdir(home).is_err() {
            // Nobody may be listening.
            let _ = nix::unistd::write(io::stderr(), self.complaint.as_bytes());
            chdir(c"/")?;
        }
        Ok(())
    }

    /// Owner, group and mode of a terminal (pty_setowner of OpenSSH): others of its group may send messages to it.
    pub fn of_terminal(&self) -> (Uid, Gid, u32) {
        self.tty.map_or((self.uid, self.gid, 0o600), |tty| (self.uid, tty, 0o620))
    }
}

fn find(name: &str) -> Option<User> {
    check_user_name(name).ok()?;
    User::from_name(name).ok().flatten().filter(|user| user.name == name)
}

/// How long a home folder may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Those who read in home folders at the same time, as each may be held for ever.
const MAX_READERS: usize = 16;
/// The same in one folder: one that does not answer leaves the others some.
const MAX_OF_ONE: usize = 2;
/// How often one who waits looks whether he may.
const POLL: Duration = Duration::from_millis(10);
const NO_USER: &str = "no such user";
const NO_RUN_AS: &str = "run_as is no user of this device (/etc/passwd)";
/// Where nobody lives.
const NOWHERE: &str = "/nonexistent";
const NOBODY: (Uid, Gid) = (Uid::from_raw(65_534), Gid::from_raw(65_534));

#[cfg(test)]
mod tests {
    use super::*;

    fn system() -> Config {
        let mut config = Config::default();
        config.ssh.user_mode = UserMode::System;
        config
    }

    #[test]
    fn names_are_those_of_the_system() {
        // Who builds this may have locked it.
        if let Ok(root) = Person::look_up(&system(), "root").account {
            assert!(root.is_ours() && root.may_update(&system().ssh) && root.shell.is_some());
        }
        for nobody in ["", "no-such-user", "ro\0ot", "ro:ot"] {
            assert!(Person::look_up(&system(), nobody).account.is_err(), "{nobody:?}");
        }
    }

    #[test]
    fn only_those_update_who_are_named() {
        let rights = Rights {
            uid: Uid::from_raw(1000),
            gid: Gid::from_raw(1000),
            groups: Vec::new(),
            tty: None,
            complaint: String::new(),
        };
        let mut account = Account { name: "ada".into(), rights: Some(rights), ..Account::current() };
        account.uid = Uid::from_raw(1000);
        let mut ssh = system().ssh;
        assert!(!account.may_update(&ssh) && !account.is_ours());
        ssh.firmware_users.push("ada".into());
        assert!(account.may_update(&ssh));
        ssh.firmware_users.clear();
        ssh.user_mode = UserMode::Single;
        assert!(account.may_update(&ssh));
    }
}
