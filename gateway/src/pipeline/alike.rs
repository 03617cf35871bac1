//! Which events of a batch are of hot profiles, and which of those say the same.
//!
//! **Invariant:** nothing is held for the same but what its key wants coalesced, within one window, of one profile and source.

use schemas::id::EventId;

use super::Transmission;
use crate::Gateway;
use crate::config::HotProfiles;
use crate::hot;
use crate::recent::Fingerprint;
use crate::validate::{Checked, Refusal};

impl Gateway {
    /// Of which events the profile has had too many, and what its key wants done.
    pub(super) fn hot_among(
        &self,
        findings: &[Result<Checked, Refusal>],
        transmission: &Transmission,
    ) -> Vec<Option<(u32, HotProfiles)>> {
        let mut profiles =
            findings.iter().map(|finding| finding.as_ref().ok().map(|checked| &checked.profile));
        let beyond = self.hot.note(&transmission.key, transmission.received_at, &mut profiles);
        let policy = transmission.key.policy.hot;
        beyond.into_iter().map(|beyond| policy.filter(|_| beyond)).collect()
    }

    /// Stands for what an event says in this window, where that is to be taken once.
    pub(super) fn alike(
        &self,
        events: &[&[u8]],
        findings: &[Result<Checked, Refusal>],
        hot: &[Option<(u32, HotProfiles)>],
        transmission: &Transmission,
    ) -> Vec<Option<Fingerprint>> {
        let mut window = [0; 16];
        let number = self.hot.window(transmission.received_at).to_be_bytes();
        window.iter_mut().zip(number).for_each(|(byte, digit)| *byte = digit);
        let all = events.iter().zip(findings).zip(hot).map(|((event, finding), hot)| {
            hot.filter(|(_, action)| *action == HotProfiles::Coalesce)?;
            let checked = finding.as_ref().ok()?;
            let said = hot::saying(event, self.config.depth);
            let (source, window) = (&transmission.key.source, EventId::from_bytes(window));
            Some(self.recent.fingerprint(source, &checked.profile, window, &said))
        });
        all.collect()
    }
}
