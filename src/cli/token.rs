//! `headhunt token`: tokens for callers of a server.

use std::{
    fs::File,
    io::{IsTerminal as _, Write as _},
};

use crate::{
    access::{self, Role, check_name, moment},
    error::{Error, Kind, Result, ResultExt as _},
};

/// What to do with tokens.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a token: print it once, and its entry for the server's token file
    New(New),
}

/// A token to be made.
#[derive(Debug, clap::Args)]
pub struct New {
    /// Name for logs and messages: letters, digits, - _ and .
    #[arg(long)]
    name: String,
    /// What it is good for: detect, admin, observe
    #[arg(long, value_name = "ROLE,…", value_delimiter = ',', required = true)]
    roles: Vec<String>,
    /// Moment in RFC 3339 from which on it is refused
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// Append the entry to this token file, instead of printing it
    #[arg(long, value_name = "FILE")]
    append: Option<std::path::PathBuf>,
}

/// Runs the command. The token goes to the standard output, everything else to standard error where
/// the output is no terminal, so that `headhunt token new … >token` keeps the token alone.
pub fn run(command: Command) -> Result<()> {
    let Command::New(new) = command;
    let wrong = |field: &'static str| move |e: String| Error::invalid(e).context(field);
    check_name(&new.name).map_err(wrong("--name"))?;
    let roles: Vec<Role> = new
        .roles
        .iter()
        .map(|role| role.trim().parse().map_err(wrong("--roles")))
        .collect::<Result<_>>()?;
    if let Some(expires) = &new.expires {
        moment(expires).map_err(wrong("--expires"))?;
    }
    let token = access::mint();
    let entry = access::entry(&new.name, &token, &roles, new.expires.as_deref());
    if let Some(file) = &new.append {
        let cannot = || format!("cannot append to {}", file.display());
        let mut out = File::options()
            .append(true)
            .create(true)
            .open(file)
            .or_kind(Kind::InvalidArgument, cannot)?;
        writeln!(out, "\n{}", entry.trim_end()).or_kind(Kind::FailedPrecondition, cannot)?;
    } else if std::io::stdout().is_terminal() {
        say!("Entry for the server's token file (server.token_file):\n\n{entry}");
    } else {
        remark!("{entry}");
    }
    if std::io::stdout().is_terminal() {
        say!("The token, shown this once:\n");
    }
    say!("{token}");
    Ok(())
}
