//! The command line: which words exist, and which module answers each.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::{agent, config, firmware, host, mdns, ssh, supervisor, sys};

/// SSH, firmware updates and fleet access for custom embedded Linux images.
#[derive(Parser)]
#[command(name = "myelin", version, propagate_version = false)]
struct Cli {
    /// Read this configuration file alone, instead of /etc/myelin and the state folder.
    #[arg(long, global = true, value_name = "FILE", env = "MYELIN_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon in the foreground: listen, start the SSH worker, keep it running.
    Daemon,
    /// One of the daemon's processes; the daemon or a systemd unit starts it.
    #[command(hide = true, subcommand)]
    Worker(Worker),
    /// What the daemon is doing now.
    Status(ssh::status::Args),
    /// The firmware: which slot runs, which comes next.
    #[command(subcommand)]
    Firmware(firmware::command::Command),
    /// Keys that may log in.
    #[command(subcommand)]
    Keys(ssh::keys::Command),
    /// Users who may log in with a password.
    #[command(subcommand)]
    Users(ssh::passwords::command::Command),
    /// Programs that clients can ask for by name.
    #[command(subcommand)]
    Subsystem(ssh::subsystem::command::Command),
    /// How the daemon is reached and recognised, and what it speaks.
    #[command(subcommand)]
    Ssh(ssh::info::Command),
    /// Who is logged in, and ending that.
    #[command(subcommand)]
    Sessions(ssh::sessions::Command),
    /// The configuration.
    #[command(subcommand)]
    Config(config::command::Command),
    /// Push a firmware file to a device and wait until it runs there.
    Upload(host::upload::Args),
    /// List the devices that announce themselves on the networks of this machine.
    Discover(host::discover::Args),
    /// Write an upload.sh that needs only ssh.
    GenScript(host::gen_script::Args),
    /// Print a completion script for a shell.
    Completions { shell: clap_complete::Shell },
    /// The built-in fwup: `myelin fwup --help` lists its options.
    #[command(disable_help_flag = true)]
    Fwup {
        #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
        args: Vec<OsString>,
    },
}

#[derive(Subcommand)]
enum Worker {
    /// The SSH server; expects its sockets by LISTEN_FDS (sd_listen_fds(3)).
    Ssh,
    /// What needs no network of its own: it lets a new firmware prove itself.
    Agent,
    /// It announces the device by multicast DNS.
    Mdns,
}

pub fn main(args: Vec<OsString>) -> ExitCode {
    let cli = Cli::parse_from(args);
    let source = config::Source::from_option(cli.config);
    if !matches!(cli.command, Command::Daemon | Command::Worker(_)) {
        sys::default_sigpipe();
    }
    match cli.command {
        Command::Daemon => supervisor::main(&source),
        Command::Worker(Worker::Ssh) => ssh::main(&source),
        Command::Worker(Worker::Agent) => agent::main(&source),
        Command::Worker(Worker::Mdns) => mdns::main(&source),
        Command::Status(args) => ssh::status::main(&source, &args),
        Command::Firmware(command) => firmware::command::main(&source, command),
        Command::Keys(command) => ssh::keys::main(&source, command),
        Command::Users(command) => ssh::passwords::command::main(&source, command),
        Command::Subsystem(command) => ssh::subsystem::command::main(&source, command),
        Command::Ssh(command) => ssh::info::main(&source, command),
        Command::Sessions(command) => ssh::sessions::main(&source, command),
        Command::Config(command) => config::command::main(&source, command),
        Command::Upload(args) => host::upload::main(args),
        Command::Discover(args) => host::discover::main(&args),
        Command::GenScript(args) => host::gen_script::main(args),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "myelin", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::Fwup { args } => crate::fwup::main(args),
    }
}
