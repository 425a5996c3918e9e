//! Helper processes, like vLLM's engine core and workers for a launcher.
//!
//! They run this program's own command line with `--child` added, in the same
//! process group, and do nothing. A SIGKILL of the stand-in leaves them behind, as
//! it leaves vLLM's: the launcher of workers must kill the group. They end by
//! themselves after [`LIFE_MAX`], so that no test leaks them for ever.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::end::SimError;

/// Longest life of a helper process.
const LIFE_MAX: Duration = Duration::from_mins(10);

/// Does nothing, for as long as a helper process may live.
pub(super) async fn hold() {
    crate::time::sleep(LIFE_MAX).await;
}

/// The helper processes of this one.
#[derive(Debug)]
pub(super) struct Children(Vec<Child>);

impl Children {
    /// Starts as many.
    ///
    /// # Errors
    ///
    /// [`SimError::Io`] when one cannot be started.
    pub(super) fn spawn(count: u8) -> Result<Self, SimError> {
        let failed = || SimError::io("start a helper process");
        let mut children = Vec::new();
        for _ in 0..count {
            let program = std::env::current_exe().map_err(failed())?;
            let child = Command::new(program)
                .args(std::env::args_os().skip(1))
                .arg("--child")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .map_err(failed())?;
            children.push(child);
        }
        Ok(Self(children))
    }

    /// Ends them and waits for each.
    pub(super) async fn end(self) {
        for mut child in self.0 {
            // It fails only for a child that has ended already.
            drop(child.kill().await);
        }
    }
}
