//! `tallymark lag`: its flags.

use clap::Args;

use crate::client::lag::Options;

/// The flags of `tallymark lag`; what it does is said where the commands are listed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  tallymark lag
  tallymark lag --json | jq .lag_packs
  tallymark lag --check || alert")]
pub struct Lag {
    /// Write the answer as JSON, as the instance gave it
    #[arg(long)]
    pub json: bool,
    /// Let the exit code say how it stands
    #[arg(long)]
    pub check: bool,
    /// The instance's admin address [default: the configuration's `admin_listen`]
    #[arg(long)]
    pub admin_url: Option<String>,
}

impl Lag {
    /// What the command does; `default_url` is the admin address as the configuration has it. Whether the verdict is the
    /// exit code is `check`'s to say.
    pub fn into_options(self, default_url: &str) -> Options {
        let mut options = Options::new(self.admin_url.unwrap_or_else(|| default_url.to_owned()));
        options.json = self.json;
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        lag: Lag,
    }

    #[test]
    fn flags_become_options() {
        let parse = |args: &[&str]| Command::try_parse_from(args).ok().unwrap().lag;
        assert_eq!(parse(&["lag"]).into_options("http://default").admin_url, "http://default");
        let lag = parse(&["lag", "--json", "--check", "--admin-url", "http://h:1"]);
        assert!(lag.check);
        let options = lag.into_options("http://default");
        assert!(options.json && options.admin_url == "http://h:1");
    }
}
