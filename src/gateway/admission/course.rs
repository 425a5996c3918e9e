//! Course of a request along the list that its name leads to.
//!
//! Each target is asked at most once, so the length of the list bounds what one request costs;
//! the budget of retries is for the servers of one target. Nothing is passed over once an
//! answer began.

use super::admit::{Admission, Call, Seated, place};
use crate::config::GoOn;
use crate::gateway::record::{Record, RequestPhase};
use crate::gateway::refusal::Refusal;
use crate::gateway::retry::onward;
use crate::gateway::route::table::Destination;
use crate::gateway::route::table::lineup::{Lineup, Ranked, Served};
use crate::telemetry::metrics::retried;

/// Reason why a target does not answer.
#[derive(Debug)]
pub enum Failed {
    /// The next one is asked, for this reason.
    Onward(&'static str),
    /// The request ends here.
    Here(Refusal),
}

/// A request on its way along a list.
#[derive(Debug)]
pub struct Course<'a> {
    call: Call<'a>,
    ranked: Vec<Ranked<'a>>,
    /// Reasons why those before the present one did not answer.
    failed: Vec<&'static str>,
    /// Places of the route and the token, while none of a target is held.
    seated: Seated,
}

/// The target whose turn it is.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The target.
    pub one: Ranked<'a>,
    /// The request, as one for it.
    pub call: Call<'a>,
    /// Failures after which the next is asked; of the last one none.
    pub when: &'a [GoOn],
}

impl<'a> Course<'a> {
    /// Puts the targets into their order, by what is known now: so not before the wait for
    /// a place of the route.
    pub fn new((call, list): (Call<'a>, &'a Lineup), key: Option<u64>, seated: Seated) -> Self {
        Self {
            call,
            ranked: list.ranked(call.api, key),
            failed: Vec::new(),
            seated,
        }
    }

    /// The target whose turn it is, past those that are `is_too_short` for the request.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] where none is left.
    pub fn turn(
        &mut self,
        is_too_short: impl Fn(&Destination, &[GoOn]) -> bool,
        record: &mut Record,
    ) -> Result<Step<'a>, Refusal> {
        while let Some(one) = self.ranked.get(self.failed.len()).copied() {
            let when = if self.has_next() {
                one.listed.rule.when.as_slice()
            } else {
                &[]
            };
            let call = Call {
                destination: &one.listed.destination,
                ..self.call
            };
            if !is_too_short(call.destination, when) {
                let at = self.failed.len();
                record.served = Served::at(&self.ranked, at, &self.failed).map(Box::new);
                record.phase = RequestPhase::Queue;
                return Ok(Step { one, call, when });
            }
            self.failed.push("too_long");
        }
        // All that served it have left while the request waited.
        let unserved = self.call.destination.must_serve(self.call.api).err();
        Err(unserved.unwrap_or(Refusal::Unreachable))
    }

    /// The next target that has a place.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] where none is left, or one refuses and the list says that no other is
    /// asked then.
    pub async fn next(
        &mut self,
        is_too_short: impl Fn(&Destination, &[GoOn]) -> bool,
        record: &mut Record,
    ) -> Result<(Step<'a>, Admission), Refusal> {
        loop {
            let step = self.turn(&is_too_short, record)?;
            match place(step.call, record).await {
                Ok(place) => {
                    let seated = self.seated();
                    return Ok((step, Admission::admitted(place, seated, record)));
                }
                Err(refusal) => self.refused(step, refusal)?,
            }
        }
    }

    /// Takes the places of the route and the token along to a target.
    pub fn seated(&mut self) -> Seated {
        std::mem::take(&mut self.seated)
    }

    /// Passes over the one that had no place for the request.
    ///
    /// # Errors
    ///
    /// The [`Refusal`], where the list says that no other is asked then.
    pub fn refused(&mut self, step: Step<'_>, refusal: Refusal) -> Result<(), Refusal> {
        let why = onward(Err(&refusal), step.when, false).ok_or(refusal)?;
        self.failed.push(why);
        Ok(())
    }

    /// True if another stands behind the one that is asked.
    pub fn has_next(&self) -> bool {
        self.failed.len() + 1 < self.ranked.len()
    }

    /// Leaves the one that was asked, before a place of the next is waited for.
    ///
    /// # Errors
    ///
    /// The [`Refusal`] with which the request ends there.
    pub fn leave(
        &mut self,
        admission: Admission,
        failed: Failed,
        record: &mut Record,
    ) -> Result<(), Refusal> {
        let why = match failed {
            Failed::Onward(why) => why,
            Failed::Here(refusal) => return Err(refusal),
        };
        retried(self.call.destination.route.name.as_str(), why);
        record.retries += 1;
        self.failed.push(why);
        self.seated = admission.leave();
        Ok(())
    }
}
