//! The form of a model of the hub: its config and the heads of its weights, read by ranges.
//!
//! Nothing is fetched for it, and nothing is written.

use std::time::Duration;

use tokio::io::BufReader;
use tokio::process::ChildStdout;

use super::{Asks, HubError, HubModel, Told, is_below, last_line, line_of};
use crate::models::checkpoint::{Checkpoint, HEADS_BYTES_MAX, Tensor, tensors};
use crate::time::timeout;

/// Longest wait for the hub.
const LOOK_MAX: Duration = Duration::from_secs(30);
/// Most tensors of a model.
const TENSORS_MAX: usize = 1 << 20;

impl HubModel {
    /// Asks the hub what form the model has.
    ///
    /// # Errors
    ///
    /// [`HubError`], in a sentence that says what to do.
    pub async fn look(&self) -> Result<Checkpoint, HubError> {
        let mut child = self.spawn(Asks::Look)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        // It ends with its input, so that is held until it has said all.
        let (Some(_input), Some(output), Some(complaints)) = pipes else {
            return Err(self.broke("it has no standard streams"));
        };
        let heard = async {
            let heard = timeout(LOOK_MAX, self.hear_form(output)).await;
            // It has said all, or is to say no more.
            child.start_kill().unwrap_or_default();
            heard
        };
        let (heard, complaint) = tokio::join!(heard, last_line(complaints));
        // Waited for, so that it is no zombie; it was killed.
        drop(child.wait().await);
        match heard {
            Ok(Ok(Some(checkpoint))) => Ok(checkpoint),
            Ok(Ok(None)) => Err(self.broke(&complaint)),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let seconds = LOOK_MAX.as_secs();
                Err(self.broke(&format!("the hub took longer than {seconds} s")))
            }
        }
    }

    /// Hears it to its end; `None` where that came without a word.
    async fn hear_form(&self, output: ChildStdout) -> Result<Option<Checkpoint>, HubError> {
        let mut output = BufReader::new(output);
        let (mut config, mut found, mut read) = (None, Vec::new(), 0_u64);
        while let Some(line) = line_of(&mut output).await {
            let told = serde_json::from_slice(&line).map_err(|e| self.senseless(&e.to_string()))?;
            match told {
                Told::Config { text } => {
                    let read = serde_json::from_str(&text);
                    config = Some(read.map_err(|e| self.senseless(&format!("config.json: {e}")))?);
                }
                Told::Head { file, size, text } => {
                    let head = self.head(&file, size, &text)?;
                    read = read.saturating_add(u64::try_from(text.len()).unwrap_or(u64::MAX));
                    if found.len() + head.len() > TENSORS_MAX || read > HEADS_BYTES_MAX {
                        return Err(self.senseless("it has more tensors than any model"));
                    }
                    found.extend(head);
                }
                Told::Looked { total } => {
                    let config = config.ok_or_else(|| self.senseless("it says no config"))?;
                    return Ok(Some(Checkpoint::told(config, found, total)));
                }
                Told::Waits { .. } => {}
                Told::Failed { kind, detail, file } => {
                    return Err(HubError::Refused(self.refused(kind, &detail, file)));
                }
                Told::Plan(_) | Told::Progress { .. } | Told::Done { .. } => {
                    return Err(self.senseless("nobody asked for its files"));
                }
            }
        }
        Ok(None)
    }

    fn head(&self, file: &str, size: u64, text: &str) -> Result<Vec<Tensor>, HubError> {
        if !is_below(file) {
            return Err(self.senseless(&format!("{file:?} is no file")));
        }
        let head = u64::try_from(text.len()).unwrap_or(u64::MAX);
        let data = size.checked_sub(head.saturating_add(8));
        let data =
            data.ok_or_else(|| self.senseless(&format!("{file} is shorter than its head")))?;
        tensors(text.as_bytes(), data).map_err(|why| self.senseless(&format!("{file}: {why}")))
    }
}

#[cfg(test)]
mod tests;
