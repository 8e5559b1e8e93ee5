//! How `pub` and `sub` reach a broker: the flags that both have, and the connection that they describe.

use vespiary_core::Qos;
use vespiary_core::event::Protocol;

use crate::mqtt::client::ConnectOptions;

/// How to connect.
#[derive(Debug, Clone, clap::Args)]
#[command(disable_version_flag = true)] // -V is the protocol's here, as users of mosquitto_pub expect.
pub(super) struct ConnectionArgs {
    /// Address of the broker
    #[arg(long, value_name = "ADDR:PORT", env = "VESPIARY_MQTT", default_value = "127.0.0.1:1883")]
    mqtt: String,
    /// Client identifier; made up if not given
    #[arg(short = 'i', long, value_name = "NAME")]
    id: Option<String>,
    /// Begin with a clean session; `false` resumes the one that the broker keeps under --id
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, requires_if("false", "id"))]
    clean: bool,
    /// Seconds that the session outlives the connection (5.0); for ever if not given with `--clean false`
    #[arg(long, value_name = "SECONDS")]
    session_expiry: Option<u32>,
    /// MQTT version
    #[arg(short = 'V', long, value_name = "VERSION", default_value = "5")]
    protocol_version: Version,
    /// User name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Password; other users of this machine may see it, so prefer the variable
    #[arg(short = 'P', long, value_name = "PASSWORD", env = "VESPIARY_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// Seconds of silence after which the broker is asked whether it is there; 0 for never
    #[arg(short, long, value_name = "SECONDS", default_value_t = 60)]
    keepalive: u16,
}

/// `-V`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Version {
    /// MQTT 3.1.1
    #[value(name = "3.1.1", aliases = ["311", "mqttv311", "4"])]
    V311,
    /// MQTT 5.0
    #[value(name = "5", aliases = ["5.0", "mqttv5"])]
    V5,
}

impl Version {
    /// The protocol it stands for.
    pub(super) fn protocol(self) -> Protocol {
        match self {
            Self::V311 => Protocol::V3,
            Self::V5 => Protocol::V5,
        }
    }
}

impl ConnectionArgs {
    /// The connection that the flags describe; `kind` begins the identifier that is made up.
    pub(super) fn options(&self, kind: &str) -> ConnectOptions {
        let kept = if self.clean { 0 } else { u32::MAX };
        let id = self.id.clone().unwrap_or_else(|| format!("vespiary-{kind}-{:08x}", fastrand::u32(..)));
        ConnectOptions {
            clean_start: self.clean,
            session_expiry_s: self.session_expiry.unwrap_or(kept),
            keep_alive_s: self.keepalive,
            username: self.username.clone(),
            password: self.password.clone().map(String::into_bytes),
            ..ConnectOptions::new(&self.mqtt).client_id(id).protocol(self.protocol_version.protocol())
        }
    }
}

/// Reads `-q`.
pub(super) fn parse_qos(text: &str) -> Result<Qos, String> {
    text.parse().ok().and_then(Qos::from_u8).ok_or_else(|| "0, 1 or 2".to_owned())
}

/// Reads `NAME=VALUE`.
pub(super) fn parse_property(text: &str) -> Result<(Box<str>, Box<str>), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| "NAME=VALUE".to_owned())?;
    Ok((name.into(), value.into()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_whole_command_line_is_consistent() {
        super::super::Cli::command().debug_assert();
    }
}
