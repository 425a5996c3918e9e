//! Commands of operators and clients: each becomes events of the replicas that it means.

use super::Conductor;
use super::member::Rolls;
use crate::lifecycle::control::{Command, CommandError};
use crate::lifecycle::decide::why::Why;
use crate::lifecycle::tell::story;
use crate::names::DeploymentId;

impl Conductor {
    pub(super) fn command(
        &mut self,
        id: &DeploymentId,
        command: Command,
        why: &Why,
    ) -> Result<(), CommandError> {
        if self.ending.is_some() {
            return Err(CommandError::Ended);
        }
        let members = self.members.iter();
        let replicas: Vec<_> = members
            .filter(|(of, member)| id.has_replica(of) && !member.leaving)
            .collect();
        let Some((_, first)) = replicas.first() else {
            return Err(CommandError::Unknown(id.clone()));
        };
        if command == Command::Replace {
            let waiting = replicas.iter().filter(|(_, member)| member.is_to_roll());
            let waiting: Vec<_> = waiting.map(|(of, _)| (*of).clone()).collect();
            if !waiting.is_empty() {
                self.hurry(&waiting);
                return Ok(());
            }
        }
        let obeyed = story::event_of(command, &first.subject()).map_err(CommandError::Refused);
        let has_nowhere = command == Command::Offload
            && first.policy.offload_to.is_some()
            && self
                .placement
                .offload_to(first.key, first.policy.offload_to)
                .is_none();
        if has_nowhere {
            return Err(CommandError::Refused(format!(
                "{id} can't be offloaded now: host memory has no room for its weights, and its \
                 file permits no other level: add levels = [\"cpu\", \"disk\"] to [instance.idle]"
            )));
        }
        let mut events = Vec::new();
        for (of, member) in replicas {
            // A start is one worker's; the load asks for more.
            let meant = member.number() == 1
                || matches!(command, Command::Stop | Command::Unload | Command::Offload);
            if let Ok(event) = story::event_of(command, &member.subject())
                && meant
            {
                events.push((of.clone(), event, Some(why.clone())));
            }
        }
        if events.is_empty() {
            return obeyed.map(drop);
        }
        self.turn.extend(events);
        Ok(())
    }

    /// Workers that wait to be replaced do so no longer than for each other.
    fn hurry(&mut self, waiting: &[DeploymentId]) {
        for id in waiting {
            if let Some(member) = self.members.get_mut(id) {
                member.rolls = Rolls::Hurried;
            }
        }
        self.roll();
    }

    /// Ends the worker of a deployment as a client asks, where nobody else loses by it:
    /// not while a request of anyone is inside or waits, nor where its file keeps it up.
    pub(super) fn unload(&mut self, id: &DeploymentId) {
        let handle = self.members.get(id).map(|member| &member.handle);
        if handle.is_none_or(|handle| handle.is_in_use() || handle.is_kept()) {
            return;
        }
        if let Err(error) = self.command(id, Command::Unload, &Why::Client) {
            tracing::debug!(deployment.id = %id, error = %error, "a client can't unload it");
        }
    }
}
