//! Way of a request along the list that its name leads to.
//!
//! Each target is asked at most once, so the length of the list bounds what one request costs;
//! the budget of retries is for the servers of one target. Nothing is passed over once an
//! answer began.

use super::admit::{Admission, Call, Seated, place, seat};
use super::concurrency::Seating;
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
pub struct Walk<'a> {
    call: Call<'a>,
    ranked: Vec<Ranked<'a>>,
    /// Reasons why those before the present one did not answer.
    failed: Vec<&'static str>,
    seated: Seated,
}

/// A target that has a place for the request.
#[derive(Debug)]
pub struct Step<'a> {
    /// The target.
    pub one: Ranked<'a>,
    /// The request, as one for it.
    pub call: Call<'a>,
    /// Failures after which the next is asked; of the last one none.
    pub when: &'a [GoOn],
    /// The place.
    pub admission: Admission,
}

impl<'a> Walk<'a> {
    /// Takes one of the places of the route, and puts the targets into their order.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] when a limit is reached.
    pub async fn begin(
        seats: Seating,
        (call, list): (Call<'a>, &'a Lineup),
        key: Option<u64>,
        record: &mut Record,
    ) -> Result<Self, Refusal> {
        let seated = seat(seats, call, record).await?;
        Ok(Self {
            call,
            // What is known now, and not before the wait for a place of the route.
            ranked: list.ranked(call.api, key),
            failed: Vec::new(),
            seated,
        })
    }

    /// The next target that has a place, but for those that `is_too_short` for the request.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] where none is left, or one refuses and the list says that no other is
    /// asked then.
    pub async fn next(
        &mut self,
        is_too_short: impl Fn(&Destination, &[GoOn]) -> bool,
        record: &mut Record,
    ) -> Result<Step<'a>, Refusal> {
        while let Some(one) = self.ranked.get(self.failed.len()).copied() {
            let at = self.failed.len();
            record.served = Served::at(&self.ranked, at, &self.failed).map(Box::new);
            let when = if self.has_next() {
                one.listed.rule.when.as_slice()
            } else {
                &[]
            };
            let call = Call {
                destination: &one.listed.destination,
                ..self.call
            };
            if is_too_short(call.destination, when) {
                self.failed.push("too_long");
                continue;
            }
            record.phase = RequestPhase::Queue;
            match place(call, record).await {
                Ok(place) => {
                    let seated = std::mem::take(&mut self.seated);
                    return Ok(Step {
                        one,
                        call,
                        when,
                        admission: Admission::admitted(place, seated, record),
                    });
                }
                Err(refusal) => {
                    let why = onward(Err(&refusal), when, false).ok_or(refusal)?;
                    self.failed.push(why);
                }
            }
        }
        // All that served it have left while the request waited.
        let unserved = self.call.destination.must_serve(self.call.api).err();
        Err(unserved.unwrap_or(Refusal::Unreachable))
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
