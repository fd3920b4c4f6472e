//! The options of a call.

use std::path::PathBuf;

use clap::Parser;

use super::interface::Interface;
use crate::error::{Error, Result};

/// A call of Wireshark's, see extcap(4). What is in the form has the names of the command line.
#[derive(Debug, Parser)]
#[command(name = "nsntrace", disable_help_flag = true, args_override_self = true)]
pub struct Arguments {
    /// List the interfaces
    #[arg(long)]
    pub extcap_interfaces: bool,

    /// The version of who calls
    #[arg(long, value_name = "VERSION")]
    pub extcap_version: Option<String>,

    /// The interface that is meant
    #[arg(long, value_name = "INTERFACE")]
    pub extcap_interface: Option<String>,

    /// List the interface's link types
    #[arg(long)]
    pub extcap_dlts: bool,

    /// List the interface's options
    #[arg(long)]
    pub extcap_config: bool,

    /// With --extcap-config, list what there is to choose from for this option alone
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    pub extcap_reload_option: Option<String>,

    /// Trace
    #[arg(long)]
    pub capture: bool,

    /// Keep only what matches; without --capture, say what is wrong with it
    #[arg(long, value_name = "EXPRESSION", allow_hyphen_values = true)]
    pub extcap_capture_filter: Option<String>,

    /// The pipe that the trace goes into
    #[arg(long, value_name = "FIFO")]
    pub fifo: Option<PathBuf>,

    /// For a toolbar, of which there is none
    #[arg(long, value_name = "FIFO")]
    pub extcap_control_in: Option<PathBuf>,

    /// For a toolbar, of which there is none
    #[arg(long, value_name = "FIFO")]
    pub extcap_control_out: Option<PathBuf>,

    /// The program and its arguments, as for a shell
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    pub program: Option<String>,

    /// Run the program as this user
    #[arg(long, value_name = "USER", allow_hyphen_values = true)]
    pub user: Option<String>,

    /// Give the program an SSLKEYLOGFILE
    #[arg(long)]
    pub tls_keys: bool,

    /// The network device to use
    #[arg(long, value_name = "DEVICE", allow_hyphen_values = true)]
    pub device: Option<String>,

    /// Use public name servers
    #[arg(long)]
    pub use_public_dns: bool,

    /// Ports of the program that are reached at the host's, with blanks between
    #[arg(long, value_name = "PORTS", allow_hyphen_values = true)]
    pub publish: Option<String>,

    /// Let the program reach services on the host's loopback
    #[arg(long)]
    pub host_loopback: bool,

    /// Trace the namespace's lo too
    #[arg(long)]
    pub loopback: bool,

    /// A cgroup of the list
    #[arg(long, value_name = "CGROUP", allow_hyphen_values = true)]
    pub cgroup: Option<String>,

    /// A cgroup that was typed in
    #[arg(long, value_name = "CGROUP", allow_hyphen_values = true)]
    pub named: Option<String>,

    /// The cgroup of a process
    #[arg(long, value_name = "PID", allow_hyphen_values = true)]
    pub pid: Option<String>,

    /// Names of processes whose packets alone are wanted, as words for a shell
    #[arg(long, value_name = "NAMES", allow_hyphen_values = true)]
    pub process: Option<String>,

    /// Keep at most so much of a packet
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub snaplen: Option<String>,

    /// Size of the ring buffer
    #[arg(long, value_name = "KIB", allow_hyphen_values = true)]
    pub buffer_size: Option<String>,
}

impl Arguments {
    /// The interface that is meant.
    ///
    /// # Errors
    /// Where there is no such interface.
    pub fn interface(&self) -> Result<Interface> {
        let name = self.extcap_interface.as_deref();
        Interface::find(
            name.ok_or_else(|| Error::told("no interface is named: --extcap-interface is missing"))?,
        )
    }
}
