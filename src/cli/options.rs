//! `tidegate options`

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::common::Failure;
use crate::config::keys::render as keys;
use crate::vllm::options::render;
use crate::vllm::versions::{Version, VersionArgs};

/// The version that is shown when none is named: the newest that is built in.
const NEWEST: Version = Version::new(0, 32, 0);

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The vLLM version whose options are shown
    #[arg(long, value_name = "V", default_value_t = NEWEST)]
    vllm_version: Version,
    /// How they are shown
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// The keys of tidegate.toml and of route files instead, with their environment variables
    #[arg(long)]
    settings: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Columns for people
    Table,
    /// One JSON document
    Json,
    /// A JSON Schema of route files, or with --settings of tidegate.toml, for editors
    Schema,
    /// The reference
    Markdown,
    /// The block of settings in README.md
    #[value(hide = true)]
    Readme,
    /// Command lines with our verdict, to hold against a real vLLM
    #[value(hide = true)]
    Cases,
}

impl Options {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let version = self.vllm_version;
        let mut out = io::BufWriter::new(io::stdout().lock());
        match (self.format, self.settings) {
            (Format::Table, false) => render::table(&mut out, version)?,
            (Format::Table, true) => keys::table(&mut out)?,
            (Format::Json, false) => render::json(&mut out, version)?,
            (Format::Json, true) => render::pretty(&mut out, &keys::json())?,
            (Format::Schema, false) => render::pretty(&mut out, &keys::route_schema(version))?,
            (Format::Schema, true) => render::pretty(&mut out, &keys::settings_schema())?,
            (Format::Markdown, false) => render::markdown(&mut out)?,
            (Format::Markdown, true) => keys::markdown(&mut out)?,
            (Format::Readme, _) => out.write_all(keys::readme().as_bytes())?,
            (Format::Cases, _) => render::cases(&mut out, &VersionArgs::built_in(version))?,
        }
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}
