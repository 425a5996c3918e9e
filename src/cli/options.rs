//! `tidegate options`

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::Failure;
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
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Columns for people
    Table,
    /// One JSON document
    Json,
    /// A JSON Schema of route files, for editors
    Schema,
    /// The reference
    Markdown,
    /// Command lines with our verdict, to hold against a real vLLM
    #[value(hide = true)]
    Cases,
}

impl Options {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let version = self.vllm_version;
        let mut out = io::BufWriter::new(io::stdout().lock());
        match self.format {
            Format::Table => render::table(&mut out, version)?,
            Format::Json => render::json(&mut out, version)?,
            Format::Schema => render::schema(&mut out, version)?,
            Format::Markdown => render::markdown(&mut out)?,
            Format::Cases => render::cases(&mut out, &VersionArgs::built_in(version))?,
        }
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}
