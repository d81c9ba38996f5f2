//! `[ssh]`: who may connect, how, and within which limits. Keys are the words of sshd_config(5).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::forwarding::{Forwarding, GatewayPorts, Permit};
use super::methods::{AuthenticationMethods, Method};
use super::traffic::{ChannelTimeout, IpQos};
use super::user_mode::UserMode;
use super::users::User;
use super::values::{self, Bytes, Octal, Seconds, TextOrList, pattern_matches};

/// The built-in SFTP server as a program in `[ssh.subsystem]`; the word is sshd_config's.
pub const INTERNAL_SFTP: &str = "internal-sftp";

/// Where nothing else is said.
pub const DEFAULT_SHELL: &str = "/bin/sh";

/// The SSH daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ssh {
    /// Addresses to listen on; empty means all of `address_family`.
    #[serde(deserialize_with = "values::comma_list")]
    pub listen_address: Vec<String>,
    /// TCP port; 0 takes any free one and reports it.
    pub port: u16,
    /// Which families `listen_address = []` means.
    pub address_family: AddressFamily,
    /// Keys that may log in, as lines of an authorized_keys file (sshd(8)).
    #[serde(deserialize_with = "values::elsewhere")]
    pub authorized_keys: Vec<String>,
    /// Files with such lines, read at each login. Empty: `state_dir/ssh/authorized_keys`.
    #[serde(deserialize_with = "values::elsewhere")]
    pub authorized_keys_file: Vec<PathBuf>,
    /// A program that prints such lines for a user and a key, and as whom it runs.
    #[serde(deserialize_with = "values::words")]
    pub authorized_keys_command: Vec<String>,
    pub authorized_keys_command_user: String,
    /// One more such file, on the boot partition, which any computer can write.
    pub boot_partition_keys: BootPartitionKeys,
    /// Files with the keys of authorities whose certificates let users in.
    #[serde(deserialize_with = "values::comma_list")]
    pub trusted_user_ca_keys: Vec<PathBuf>,
    /// Principals of such certificates that may log in, as any user. Empty: the user's own name.
    #[serde(deserialize_with = "values::comma_list")]
    pub authorized_principals: Vec<String>,
    /// Files of keys that may not log in, besides the one that `myelin keys remove` writes.
    #[serde(deserialize_with = "values::comma_list")]
    pub revoked_keys: Vec<PathBuf>,
    /// Whether connections end when their key is revoked or removed, or their user is.
    pub revoke_ends_sessions: bool,
    /// Ignore key files that others may write, unless nobody could log in then.
    pub strict_modes: bool,
    /// User names that may log in, with `*` and `?`; empty means any.
    #[serde(deserialize_with = "values::comma_list")]
    pub allow_users: Vec<String>,
    /// Those that may not, even so.
    #[serde(deserialize_with = "values::comma_list")]
    pub deny_users: Vec<String>,
    /// What a user name stands for.
    pub user_mode: UserMode,
    /// As which user of the system sessions run where a name stands for nobody. Unset: the daemon's own.
    pub run_as: Option<String>,
    /// Users of the system that may update the firmware, besides root.
    #[serde(deserialize_with = "values::comma_list")]
    pub firmware_users: Vec<String>,
    /// Where host keys lie. Unset: `state_dir/ssh`.
    pub host_key_dir: Option<PathBuf>,
    /// Kinds of host keys that are made when missing.
    #[serde(deserialize_with = "values::comma_list")]
    pub host_key_types: Vec<HostKeyType>,
    /// More host keys to read, which are never made or replaced.
    #[serde(deserialize_with = "values::comma_list")]
    pub host_key: Vec<PathBuf>,
    /// Certificates of host keys.
    #[serde(deserialize_with = "values::comma_list")]
    pub host_certificate: Vec<PathBuf>,
    /// The login shell of sessions without a command, and what runs commands (`SHELL -c COMMAND`). Unset: /bin/sh, or
    /// the one that passwd(5) has for a user of the system.
    pub shell: Option<Program>,
    /// Whether commands may be run.
    pub exec: Program,
    /// Whether the built-in `sftp` subsystem is there: sftp, scp and sshfs use it.
    pub sftp: bool,
    /// The folder that is `/` for SFTP clients, and that they cannot leave. Unset: the whole file system.
    pub sftp_root: Option<PathBuf>,
    /// Where SFTP clients begin, inside `sftp_root`; `~` is the home folder. Unset: `/`, or the home folder of a user of
    /// the system.
    pub sftp_start: Option<PathBuf>,
    /// SFTP clients may change nothing.
    pub sftp_read_only: bool,
    /// Permissions that files made by SFTP clients do not get.
    pub sftp_umask: Octal,
    /// Files and folders that one SFTP client may have open.
    pub sftp_max_handles: usize,
    /// Whether the passwords of the system's users count, besides those here.
    pub shadow_passwords: bool,
    /// Who may log in with a password.
    #[serde(deserialize_with = "values::elsewhere")]
    pub users: BTreeMap<String, User>,
    /// What somebody has to show to get in.
    pub authentication_methods: AuthenticationMethods,
    /// Whether keys count. While no password can let anybody in, they do in any case.
    pub pubkey_authentication: bool,
    /// A program that says whether a password is right, in place of `users`.
    #[serde(deserialize_with = "values::words")]
    pub auth_command: Vec<String>,
    /// Whether a password may be sent as such (RFC 4252 section 8).
    pub password_authentication: bool,
    /// Whether it may be asked for (RFC 4256).
    pub kbd_interactive_authentication: bool,
    /// What is shown with the question; `%u` is the user.
    pub kbd_interactive_name: String,
    pub kbd_interactive_instruction: String,
    pub kbd_interactive_prompt: String,
    /// Whether a user whose password is empty may log in.
    pub permit_empty_passwords: bool,
    /// Wrong passwords after which a connection ends.
    pub password_tries: u32,
    /// Subsystems of the image's own: a name, and a program with its arguments.
    #[serde(deserialize_with = "values::elsewhere")]
    pub subsystem: BTreeMap<String, Vec<String>>,
    /// Whether connections may be forwarded: those that a client has us make (`local`, `ssh -L`), those that we
    /// accept for it (`remote`, `ssh -R`).
    pub allow_tcp_forwarding: Forwarding,
    /// Where the connections may lead that a client has us make.
    #[serde(deserialize_with = "values::comma_list")]
    pub permit_open: Vec<Permit>,
    /// Where a client may have us listen.
    #[serde(deserialize_with = "values::comma_list")]
    pub permit_listen: Vec<Permit>,
    /// Who may connect there.
    pub gateway_ports: GatewayPorts,
    /// The same for sockets of the file system: those that a client has us connect to (`local`), and listen on.
    pub allow_stream_local_forwarding: Forwarding,
    /// Which sockets those may be.
    #[serde(deserialize_with = "values::comma_list")]
    pub permit_socket: Vec<String>,
    /// Permissions that the sockets do not get that we listen on.
    pub stream_local_bind_mask: Octal,
    /// Whether a socket that is there already gives way.
    pub stream_local_bind_unlink: bool,
    /// Whether programs here may use the client's agent (`ssh -A`).
    pub allow_agent_forwarding: bool,
    /// Forwarded connections of one connection, the sockets that wait for some among them.
    pub max_forwards: usize,
    /// What is said where neither shell nor command is to be had.
    pub no_shell_message: Option<String>,
    /// Whether the log has what clients run.
    pub log_commands: bool,
    /// A program that is told of logins, refusals and ends, and its arguments.
    #[serde(deserialize_with = "values::words")]
    pub on_event: Vec<String>,
    /// Environment variables that a client may set; `*` and `?` match as in sshd_config(5).
    #[serde(deserialize_with = "values::comma_list")]
    pub accept_env: Vec<String>,
    /// Our identification string (RFC 4253 section 4.2); `random`, or `random:MIN:MAX`, makes a new name of so many
    /// letters for each connection.
    pub version_string: String,
    /// Text shown before authentication.
    pub banner: Option<String>,
    /// Whether who opens a shell on a terminal is greeted.
    pub print_motd: bool,
    /// A file that is shown then.
    pub motd: PathBuf,
    /// Whether the state of the device is shown then.
    pub motd_status: bool,
    /// Algorithm lists, in order; `+`, `-` and `^` prefixes change the default as in sshd_config(5).
    #[serde(deserialize_with = "values::joined")]
    pub kex_algorithms: String,
    #[serde(deserialize_with = "values::joined")]
    pub ciphers: String,
    #[serde(deserialize_with = "values::joined")]
    pub macs: String,
    #[serde(deserialize_with = "values::joined")]
    pub pubkey_accepted_algorithms: String,
    /// Sizes of groups that a client may ask for by group exchange (RFC 4419), in bits.
    pub dh_gex_min: u32,
    pub dh_gex_max: u32,
    /// The groups, as moduli(5). Unset: those of RFC 3526.
    pub moduli_file: Option<PathBuf>,
    /// The smallest RSA key of a user that is accepted, in bits.
    pub required_rsa_size: u32,
    /// Renew the session keys after so many bytes in one direction, or so much time.
    pub rekey_limit: Bytes,
    pub rekey_interval: Seconds,
    /// Time that an exchange of new session keys may take.
    pub rekey_timeout: Seconds,
    /// Places for connections that have not logged in. A newcomer is never refused: one that is there gives way.
    pub max_startups: usize,
    /// Connections that have logged in.
    pub max_connections: usize,
    /// What the ssh worker may have in memory before it is replaced; 0 is no limit.
    pub max_memory: Bytes,
    /// Whether the thread that serves connections is kept from what only an intruder would do there.
    pub sandbox: bool,
    /// Session channels of one connection.
    pub max_sessions: usize,
    /// Signed or password attempts of one connection.
    pub max_auth_tries: u32,
    /// Whether sources whose logins fail are kept away for a while.
    pub per_source_penalties: bool,
    /// Time to log in.
    pub login_grace_time: Seconds,
    /// Time to send an identification string.
    pub hello_timeout: Seconds,
    /// Time a logged-in connection may stay without a channel; 0 for ever.
    pub unused_connection_timeout: Seconds,
    /// `TYPE=TIME`: channels over which nothing has gone for so long end.
    #[serde(deserialize_with = "values::comma_list")]
    pub channel_timeout: Vec<ChannelTimeout>,
    /// Ask a silent client whether it is still there, so often; 0 never.
    pub client_alive_interval: Seconds,
    /// Unanswered questions after which the connection ends.
    pub client_alive_count_max: usize,
    /// Receive window of a channel, in bytes: what a client may send ahead.
    pub window_size: Bytes,
    /// Channels of clients that take smaller packets than this are refused; bytes.
    pub min_remote_packet_size: u32,
    /// Whether the system looks for ends of idle connections that say nothing (tcp(7)).
    pub tcp_keep_alive: bool,
    /// Whether small packets go out at once.
    pub no_delay: bool,
    /// How long sent data may stay unacknowledged; 0 leaves it to the system.
    pub tcp_user_timeout: Seconds,
    /// The class of our packets, while somebody types and else.
    pub ipqos: IpQos,
    /// Where input that a program does not read waits on disk. Unset: `state_dir/spool`.
    pub spool_dir: Option<PathBuf>,
    /// The protocol of nerves_firmware_ssh, on a listener of its own.
    #[serde(deserialize_with = "values::elsewhere")]
    pub legacy: Legacy,
}

impl Default for Ssh {
    fn default() -> Self {
        Self {
            listen_address: Vec::new(),
            port: 22,
            address_family: AddressFamily::Any,
            authorized_keys: Vec::new(),
            authorized_keys_file: Vec::new(),
            authorized_keys_command: Vec::new(),
            authorized_keys_command_user: "nobody".into(),
            boot_partition_keys: BootPartitionKeys::Path("/boot/authorized_keys".into()),
            trusted_user_ca_keys: Vec::new(),
            authorized_principals: Vec::new(),
            revoked_keys: Vec::new(),
            revoke_ends_sessions: true,
            strict_modes: true,
            allow_users: Vec::new(),
            deny_users: Vec::new(),
            user_mode: UserMode::Single,
            run_as: None,
            firmware_users: vec!["root".into()],
            host_key_dir: None,
            host_key_types: vec![HostKeyType::Ed25519],
            host_key: Vec::new(),
            host_certificate: Vec::new(),
            shell: None,
            exec: Program::Shell,
            sftp: true,
            sftp_root: None,
            sftp_start: None,
            sftp_read_only: false,
            sftp_umask: Octal(0o022),
            sftp_max_handles: 64,
            shadow_passwords: false,
            users: BTreeMap::new(),
            authentication_methods: AuthenticationMethods::default(),
            pubkey_authentication: true,
            auth_command: Vec::new(),
            password_authentication: true,
            kbd_interactive_authentication: true,
            kbd_interactive_name: "SSH server".into(),
            kbd_interactive_instruction: "Enter password for \"%u\"".into(),
            kbd_interactive_prompt: "password: ".into(),
            permit_empty_passwords: false,
            password_tries: 3,
            subsystem: BTreeMap::new(),
            allow_tcp_forwarding: Forwarding::Local,
            permit_open: Permit::loopback(),
            permit_listen: vec![Permit::anything()],
            gateway_ports: GatewayPorts::No,
            allow_stream_local_forwarding: Forwarding::Local,
            permit_socket: Vec::new(),
            stream_local_bind_mask: Octal(0o177),
            stream_local_bind_unlink: false,
            allow_agent_forwarding: false,
            max_forwards: 16,
            no_shell_message: None,
            log_commands: false,
            on_event: Vec::new(),
            accept_env: ["LANG", "LC_*", "COLORTERM", "TERM_PROGRAM", "MYELIN_*"].map(String::from).to_vec(),
            version_string: "SSH-2.0-Myelin".into(),
            banner: None,
            print_motd: true,
            motd: "/etc/motd".into(),
            motd_status: true,
            kex_algorithms: String::new(),
            ciphers: String::new(),
            macs: String::new(),
            pubkey_accepted_algorithms: String::new(),
            dh_gex_min: 3072,
            dh_gex_max: 8192,
            moduli_file: None,
            required_rsa_size: 2048,
            rekey_limit: Bytes(1 << 30),
            rekey_interval: Seconds::from_secs(3600),
            rekey_timeout: Seconds::from_secs(30),
            max_startups: 64,
            max_connections: 128,
            max_memory: Bytes(128 << 20),
            sandbox: true,
            max_sessions: 8,
            max_auth_tries: 6,
            per_source_penalties: true,
            login_grace_time: Seconds::from_secs(30),
            hello_timeout: Seconds::from_secs(10),
            unused_connection_timeout: Seconds::from_secs(60),
            channel_timeout: Vec::new(),
            client_alive_interval: Seconds::from_secs(30),
            client_alive_count_max: 3,
            window_size: Bytes(1 << 20),
            min_remote_packet_size: 512,
            tcp_keep_alive: true,
            no_delay: true,
            tcp_user_timeout: Seconds::from_secs(90),
            ipqos: IpQos::default(),
            spool_dir: None,
            legacy: Legacy::default(),
        }
    }
}

impl Ssh {
    /// Whether the configuration switches a method off.
    pub fn disables(&self, method: Method) -> bool {
        match method {
            Method::PublicKey => !self.pubkey_authentication,
            Method::Password => !self.password_authentication,
            Method::KeyboardInteractive => !self.kbd_interactive_authentication,
        }
    }

    /// The shell of whoever is no user of the system.
    pub fn shell(&self) -> Program {
        self.shell.clone().unwrap_or_else(|| Program::Command(vec![DEFAULT_SHELL.into()]))
    }

    /// Whether somebody of this name may log in at all.
    pub fn lets_in(&self, user: &str) -> Result<(), &'static str> {
        let names = |patterns: &[String]| patterns.iter().any(|pattern| pattern_matches(pattern, user));
        if !self.allow_users.is_empty() && !names(&self.allow_users) {
            return Err("user not in allow_users");
        }
        if names(&self.deny_users) { Err("user in deny_users") } else { Ok(()) }
    }

    /// The alternatives of `authentication_methods` that can be gone through.
    pub fn possible_methods(&self) -> Vec<Vec<Method>> {
        let possible = |list: &&Vec<Method>| !list.iter().any(|&method| self.disables(method));
        self.authentication_methods.0.iter().filter(possible).cloned().collect()
    }
}

/// `[ssh.legacy]`: the protocol of nerves_firmware_ssh, with the keys and limits of `[ssh]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Legacy {
    pub enabled: bool,
    pub port: u16,
}

impl Default for Legacy {
    fn default() -> Self {
        Self { enabled: false, port: 8989 }
    }
}

/// Which Internet protocols "all addresses" means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressFamily {
    Any,
    Inet,
    Inet6,
}

/// Kinds of host keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostKeyType {
    Ed25519,
    Rsa,
    Ecdsa,
}

/// The file of keys on the boot partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum BootPartitionKeys {
    Disabled,
    Path(PathBuf),
}

impl From<String> for BootPartitionKeys {
    fn from(text: String) -> Self {
        if text == "disabled" { Self::Disabled } else { Self::Path(text.into()) }
    }
}

impl From<BootPartitionKeys> for String {
    fn from(keys: BootPartitionKeys) -> Self {
        match keys {
            BootPartitionKeys::Disabled => "disabled".into(),
            BootPartitionKeys::Path(path) => path.to_string_lossy().into_owned(),
        }
    }
}

/// What a shell or exec request starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TextOrList", into = "TextOrList")]
pub enum Program {
    /// `exec` only: the configured shell with `-c COMMAND`.
    Shell,
    /// Requests are refused.
    Disabled,
    /// A program and its arguments.
    Command(Vec<String>),
}

impl TryFrom<TextOrList> for Program {
    type Error = String;

    fn try_from(text: TextOrList) -> Result<Self, String> {
        match text {
            TextOrList::Text(word) if word == "shell" => Ok(Self::Shell),
            TextOrList::Text(word) if word == "disabled" => Ok(Self::Disabled),
            TextOrList::Text(word) if word.starts_with('/') => Ok(Self::Command(vec![word])),
            TextOrList::List(words) if words.first().is_some_and(|w| w.starts_with('/')) => {
                Ok(Self::Command(words))
            }
            _ => Err("must be an absolute path, a list of a path and arguments, or \"disabled\"".into()),
        }
    }
}

impl From<Program> for TextOrList {
    fn from(program: Program) -> Self {
        match program {
            Program::Shell => Self::Text("shell".into()),
            Program::Disabled => Self::Text("disabled".into()),
            Program::Command(mut words) if words.len() == 1 => Self::Text(words.remove(0)),
            Program::Command(words) => Self::List(words),
        }
    }
}
