//! The fetch of a replica's model: begun, heard, put into events of its machine.

use std::sync::Arc;

use super::Conductor;
use super::member::Member;
use crate::lifecycle::act::effects::FetchNews;
use crate::lifecycle::act::launcher::FetchFailure;
use crate::lifecycle::decide::machine::{Event, Phase};
use crate::lifecycle::decide::placement::Insists;
use crate::lifecycle::decide::why::Why;
use crate::names::DeploymentId;

impl Conductor {
    /// Hears how a fetch goes.
    pub(super) fn on_fetch(&mut self, id: &DeploymentId, number: u64, news: FetchNews) {
        let now = self.clock.now();
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        if !member.fetch.is(number) {
            return;
        }
        match news {
            FetchNews::Progress(progress) => {
                let is_first = member.fetch.progressed(progress);
                if is_first {
                    let model = &member.spec.model;
                    let text =
                        format!("fetches {model}, {progress}, before it asks for GPU memory");
                    member.tell(&self.events, text.into());
                }
                if member.machine.phase == Phase::Fetching {
                    let words = Arc::from(format!("fetches {progress}"));
                    member.progress = Some((words, progress.percent()));
                    member.publish(&self.timings, now);
                }
            }
            FetchNews::Ended(ended) => {
                member.fetch.ended(ended.is_ok());
                if ended.is_ok() {
                    self.effects.foretell(member.target(), &member.fingerprint);
                }
                let (event, why) = match ended {
                    Ok(()) => (Event::Fetched, None),
                    Err(FetchFailure::Now(why)) => (Event::FetchFailed, Some(why)),
                    Err(FetchFailure::Never(why)) => (Event::Unfetchable, Some(why)),
                };
                // Ahead of any request: its machine has not asked for it.
                if let (Some(why), true) = (&why, member.machine.phase != Phase::Fetching) {
                    let text = format!("its model could not be fetched ahead: {why}");
                    member.tell(&self.events, text.into());
                }
                self.turn
                    .push_back((id.clone(), event, why.map(Why::Fault)));
            }
        }
    }

    /// Begins the fetch of a replica's model, or goes on with the one under way.
    pub(super) fn fetch(&mut self, id: &DeploymentId) {
        if let Some(member) = self.members.get_mut(id)
            && !member.fetch.is_under_way()
        {
            let token = self.effects.fetch_token();
            let number = member.fetch.begin(&token);
            self.effects.fetch(member.target(), number, token);
        }
    }

    /// Brings models here that nobody asks for yet, where the settings want that: one after
    /// the other, and none while one is fetched that is asked for. Each is tried once.
    pub(super) fn fetch_ahead(&mut self) {
        let fetches = |member: &Member| member.fetch.is_under_way();
        if !self.settings.models.prefetch
            || self.ending.is_some()
            || self.members.values().any(fetches)
        {
            return;
        }
        let next = self.members.iter().find(|(_, member)| {
            let rests = matches!(member.machine.phase, Phase::Stopped | Phase::Ready);
            rests && !member.leaving && member.fetch.may_ahead()
        });
        if let Some((id, _)) = next {
            let id = id.clone();
            self.fetch(&id);
        }
    }

    /// True while it is to be seen whether anyone still waits for a model.
    pub(super) fn watches_fetches(&self) -> bool {
        let fetches = |member: &Member| member.machine.phase == Phase::Fetching;
        !self.settings.models.keep_fetching && self.members.values().any(fetches)
    }

    /// Ends the fetches that nobody waits for, where the settings want that.
    pub(super) fn withdraw_fetches(&mut self) {
        if !self.watches_fetches() {
            return;
        }
        for (id, member) in &self.members {
            let unasked = member.insists == Insists::No && !member.policy.restart_unasked;
            let waits = member.fleet.lead().waiting() > 0;
            if member.machine.phase == Phase::Fetching && unasked && !waits {
                self.turn.push_back((id.clone(), Event::Withdrawn, None));
            }
        }
    }
}
