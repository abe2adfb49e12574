//! The outcome state machine of a flow, as pure functions on one 32-bit word, so that the kernel can
//! change it with one compare-and-swap and a test can drive it without a clock.
//!
//! A flow's outcome is counted when it is decided: once, and once more only if a late answer overturns
//! `no_answer`, `one_way` or an ICMP error. Closing an answered flow is no new decision.

use crate::classify::{Judgement, Verdict};
use crate::key::Side;
use crate::packet::{Packet, tcp};
use crate::protocol;

/// Did the flow work (the numbers are table indices and are pinned with the layout).
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// Attempted, not decided.
    Pending = 0,
    /// TCP: handshake completed; others: a packet came back.
    Answered = 1,
    /// RST to the SYN, or ICMP port unreachable.
    Refused = 2,
    /// ICMP administratively prohibited.
    Prohibited = 3,
    /// Another ICMP error.
    Unreachable = 4,
    /// Silence where an answer is owed.
    NoAnswer = 5,
    /// The kernel of this host dropped it.
    DroppedHere = 6,
    /// Sent, no error, and no answer owed.
    OneWay = 7,
    /// Answered, and closed since.
    ClosedAfterAnswer = 8,
}

impl Outcome {
    /// How many there are.
    pub const COUNT: usize = 9;
    /// All, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Pending,
        Self::Answered,
        Self::Refused,
        Self::Prohibited,
        Self::Unreachable,
        Self::NoAnswer,
        Self::DroppedHere,
        Self::OneWay,
        Self::ClosedAfterAnswer,
    ];

    /// The name in JSON and in labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Prohibited => "prohibited",
            Self::Unreachable => "unreachable",
            Self::NoAnswer => "no_answer",
            Self::DroppedHere => "dropped_here",
            Self::OneWay => "one_way",
            Self::ClosedAfterAnswer => "closed_after_answer",
        }
    }

    #[inline(always)]
    const fn from_bits(bits: u32) -> Self {
        match bits & 0xf {
            1 => Self::Answered,
            2 => Self::Refused,
            3 => Self::Prohibited,
            4 => Self::Unreachable,
            5 => Self::NoAnswer,
            6 => Self::DroppedHere,
            7 => Self::OneWay,
            8 => Self::ClosedAfterAnswer,
            _ => Self::Pending,
        }
    }

    /// Whether the peer has answered.
    #[inline(always)]
    #[must_use]
    pub const fn is_answer(self) -> bool {
        matches!(self, Self::Answered | Self::ClosedAfterAnswer)
    }

    /// Whether the flow was attempted and did not get through.
    #[inline(always)]
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(
            self,
            Self::Refused
                | Self::Prohibited
                | Self::Unreachable
                | Self::NoAnswer
                | Self::DroppedHere
        )
    }
}

/// How far a TCP connection has come.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Not TCP.
    None = 0,
    /// SYN seen, nothing back.
    SynSent = 1,
    /// SYN-ACK seen, not acknowledged: it may not have reached the initiator.
    SynAck = 2,
    /// Handshake completed.
    Established = 3,
    /// Joined midway, one side heard.
    Midway = 4,
    /// Over: reset, or closed by both sides, or given up by the initiator.
    Closed = 5,
}

/// How much longer a flow that waits for its name outlives its last packet, nanoseconds: more than any time limit on
/// names ([`crate::payload::HOLD_MAX`]).
pub const HELD_LINGER: u64 = 90_000_000_000;

/// The state word. Bits: 0-3 outcome, 4-6 phase, 7 some of its packets were carried over, 8 and 9 FIN of initiator and responder, 10 and 11 heard
/// from them, 12 initiator is side B, 13 joined midway,
/// 14 sent to a group or broadcast, 15 held until its name is known, 16-19 SYNs (to 15), 20-21 verdict, 22 judged by
/// name, 23 counted before it was held, 24-31 matrix generation (low bits).
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct State(pub u32);

const PHASE: u32 = 4;
const CARRIED: u32 = 1 << 7;
const FIN_INITIATOR: u32 = 1 << 8;
const FIN_RESPONDER: u32 = 1 << 9;
const HEARD_INITIATOR: u32 = 1 << 10;
const HEARD_RESPONDER: u32 = 1 << 11;
const INITIATOR_IS_B: u32 = 1 << 12;
const MIDWAY: u32 = 1 << 13;
const TO_GROUP: u32 = 1 << 14;
const HELD: u32 = 1 << 15;
const SYNS: u32 = 16;
const VERDICT: u32 = 20;
const NAMED: u32 = 1 << 22;
const COUNTED: u32 = 1 << 23;
const GENERATION: u32 = 24;

impl State {
    /// The state of a flow before its first packet is applied.
    #[inline(always)]
    #[must_use]
    pub const fn new(judgement: &Judgement, generation: u32) -> Self {
        let verdict = Verdict::of_slot(judgement.slot);
        let mut bits = (verdict as u32) << VERDICT | generation << GENERATION;
        if matches!(judgement.initiator, Side::B) {
            bits |= INITIATOR_IS_B;
        }
        if judgement.joined_midway {
            bits |= MIDWAY;
        }
        if judgement.to_group {
            bits |= TO_GROUP;
        }
        if judgement.held {
            bits |= HELD;
        }
        Self(bits)
    }

    /// Whether the flow waits for its name: its verdict is a guess, and no counter of a slot knows of it.
    #[inline(always)]
    #[must_use]
    pub const fn is_held(self) -> bool {
        self.0 & HELD != 0
    }

    /// Whether the verdict was given by the flow's name, which the tables alone don't tell.
    #[inline(always)]
    #[must_use]
    pub const fn is_named(self) -> bool {
        self.0 & NAMED != 0
    }

    /// Whether the flow's packets wait to be counted until its name is known. Those of a flow that was counted before a
    /// reload made it wait go on to be counted, or they would count twice when it is released.
    #[inline(always)]
    #[must_use]
    pub const fn is_uncounted(self) -> bool {
        self.0 & (HELD | COUNTED) == HELD
    }

    /// Whether the flow's tallies in the kernel are not all that it has counted, see [`crate::entry::Carried`].
    #[inline(always)]
    #[must_use]
    pub const fn has_carried(self) -> bool {
        self.0 & CARRIED != 0
    }

    /// The same state, of a flow that [`Self::has_carried`].
    #[inline(always)]
    #[must_use]
    pub const fn carried(self) -> Self {
        Self(self.0 | CARRIED)
    }

    /// The same state, waiting for the flow's name with `verdict` as a guess.
    #[inline(always)]
    #[must_use]
    pub const fn held(self, verdict: Verdict) -> Self {
        let counted = if self.is_held() { 0 } else { COUNTED };
        Self(self.0 & !(3 << VERDICT | NAMED) | HELD | counted | (verdict as u32) << VERDICT)
    }

    /// The same state, judged by the flow's name.
    #[inline(always)]
    #[must_use]
    pub const fn named(self, verdict: Verdict) -> Self {
        Self(self.0 & !(3 << VERDICT | HELD | COUNTED) | NAMED | (verdict as u32) << VERDICT)
    }

    /// The same state with `verdict` without a name, since none is needed any more or none will come.
    #[inline(always)]
    #[must_use]
    pub const fn released(self, verdict: Verdict) -> Self {
        Self(self.0 & !(3 << VERDICT | HELD | COUNTED) | (verdict as u32) << VERDICT)
    }

    /// Current outcome.
    #[inline(always)]
    #[must_use]
    pub const fn outcome(self) -> Outcome {
        Outcome::from_bits(self.0)
    }

    /// Current TCP phase.
    #[inline(always)]
    #[must_use]
    pub const fn phase(self) -> Phase {
        match (self.0 >> PHASE) & 7 {
            1 => Phase::SynSent,
            2 => Phase::SynAck,
            3 => Phase::Established,
            4 => Phase::Midway,
            5 => Phase::Closed,
            _ => Phase::None,
        }
    }

    /// The side that initiated.
    #[inline(always)]
    #[must_use]
    pub const fn initiator(self) -> Side {
        if self.0 & INITIATOR_IS_B == 0 {
            Side::A
        } else {
            Side::B
        }
    }

    /// Whether the conversation was open before the capture saw it.
    #[inline(always)]
    #[must_use]
    pub const fn joined_midway(self) -> bool {
        self.0 & MIDWAY != 0
    }

    /// Whether the flow goes to a group or a directed broadcast, which owes no answer.
    #[inline(always)]
    #[must_use]
    pub const fn to_group(self) -> bool {
        self.0 & TO_GROUP != 0
    }

    /// SYNs seen from the initiator, 15 meaning 15 or more.
    #[inline(always)]
    #[must_use]
    pub const fn syns(self) -> u32 {
        (self.0 >> SYNS) & 0xf
    }

    /// The cached verdict.
    #[inline(always)]
    #[must_use]
    pub const fn verdict(self) -> Verdict {
        match (self.0 >> VERDICT) & 3 {
            1 => Verdict::Unexpected,
            2 => Verdict::Expected,
            _ => Verdict::Unscoped,
        }
    }

    /// Whether the cached verdict was given by matrix `generation`.
    #[inline(always)]
    #[must_use]
    pub const fn is_of_generation(self, generation: u32) -> bool {
        self.0 >> GENERATION == generation & 0xff
    }

    /// The same state under another matrix.
    #[inline(always)]
    #[must_use]
    pub const fn rejudged(self, verdict: Verdict, generation: u32) -> Self {
        Self(
            (self.0 & !(3 << VERDICT | 0xff << GENERATION))
                | (verdict as u32) << VERDICT
                | generation << GENERATION,
        )
    }

    #[inline(always)]
    const fn with_outcome(self, outcome: Outcome) -> Self {
        Self(self.0 & !0xf | outcome as u32)
    }

    #[inline(always)]
    const fn with_phase(self, phase: Phase) -> Self {
        Self(self.0 & !(7 << PHASE) | (phase as u32) << PHASE)
    }

    #[inline(always)]
    const fn answered(self) -> Self {
        if self.outcome().is_answer() {
            self
        } else {
            self.with_outcome(Outcome::Answered)
        }
    }

    #[inline(always)]
    const fn closed(self) -> Self {
        let state = self.with_phase(Phase::Closed);
        if self.outcome().is_answer() {
            state.with_outcome(Outcome::ClosedAfterAnswer)
        } else {
            state
        }
    }

    /// Whether `packet` opens a new conversation on the 5-tuple of one that is over: a SYN after a close
    /// or a refusal. The old record ends and a new flow begins.
    #[inline(always)]
    #[must_use]
    pub const fn is_restarted_by(self, packet: &Packet) -> bool {
        packet.protocol == protocol::TCP
            && packet.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
            && matches!(self.phase(), Phase::Closed)
    }

    /// Whether the flow is at rest for a plain packet ([`crate::plain`]), judged by the matrix of this `generation`: the
    /// packet changes no state, begins nothing and is to be handed to nobody, unless it is an answer of a DNS server.
    #[inline(always)]
    #[must_use]
    pub const fn is_at_rest(
        self,
        protocol: u8,
        tcp_flags: u8,
        from_initiator: bool,
        generation: u32,
    ) -> bool {
        // Answered and heard from both sides: so are nearly all, and that much is one comparison.
        const BITS: u32 = 0x7f | HEARD_INITIATOR | HEARD_RESPONDER | HELD | 0xff << GENERATION;
        if tcp_flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0 {
            return false;
        }
        let phase = if protocol == protocol::TCP {
            Phase::Established
        } else {
            Phase::None
        };
        let expected = Outcome::Answered as u32
            | (phase as u32) << PHASE
            | HEARD_INITIATOR
            | HEARD_RESPONDER
            | generation << GENERATION;
        self.0 & BITS == expected || self.has_heard(protocol, from_initiator, generation)
    }

    /// Whether the packet is one more of what the sender has been heard to say, at whatever point the flow is.
    #[inline(always)]
    const fn has_heard(self, protocol: u8, from_initiator: bool, generation: u32) -> bool {
        const BOTH: u32 = HEARD_INITIATOR | HEARD_RESPONDER;
        let own = if from_initiator {
            HEARD_INITIATOR
        } else {
            HEARD_RESPONDER
        };
        if self.is_held() || !self.is_of_generation(generation) || self.0 & own == 0 {
            return false;
        }
        match (protocol, self.phase()) {
            (protocol::TCP, Phase::Established | Phase::Closed) => true,
            (protocol::TCP, Phase::Midway) => self.0 & BOTH != BOTH,
            (protocol::TCP, Phase::None | Phase::SynSent | Phase::SynAck) => false,
            _ if from_initiator => !(matches!(self.outcome(), Outcome::Pending) && self.to_group()),
            _ => self.outcome().is_answer(),
        }
    }

    /// The state after `packet`, sent by `sender`.
    #[inline(always)]
    #[must_use]
    pub fn after(self, packet: &Packet, sender: Side) -> Self {
        let from_initiator = sender == self.initiator();
        let heard = Self(
            self.0
                | if from_initiator {
                    HEARD_INITIATOR
                } else {
                    HEARD_RESPONDER
                },
        );
        if packet.protocol == protocol::TCP {
            // A later fragment carries no flags, so it can't move a connection.
            if packet.tcp_flags == 0 {
                return heard;
            }
            return heard.after_tcp(packet.tcp_flags, from_initiator);
        }
        if !from_initiator {
            return heard.answered();
        }
        let owed = match packet.protocol {
            protocol::ICMP | protocol::ICMPV6 => {
                protocol::is_echo(packet.protocol, packet.icmp_type)
            }
            other => other != protocol::VRRP,
        };
        if heard.outcome() as u8 == Outcome::Pending as u8 && (!owed || heard.to_group()) {
            return heard.with_outcome(Outcome::OneWay);
        }
        heard
    }

    #[inline(always)]
    fn after_tcp(self, flags: u8, from_initiator: bool) -> Self {
        let phase = self.phase();
        if flags & tcp::RST != 0 {
            return match (phase, from_initiator) {
                // After a drop here or an ICMP error it is the same refusal told twice: a packet filter that
                // rejects on loopback drops the SYN before its RST goes out.
                (Phase::SynSent | Phase::SynAck, false) => {
                    let state = self.with_phase(Phase::Closed);
                    if self.is_open() {
                        state.with_outcome(Outcome::Refused)
                    } else {
                        state
                    }
                }
                // The SYN-ACK reached an initiator that no longer wanted it (the loser of a happy-eyeballs
                // race, RFC 8305): the way works in both directions.
                (Phase::SynAck, true) => self.answered().closed(),
                (
                    Phase::None
                    | Phase::SynSent
                    | Phase::Established
                    | Phase::Midway
                    | Phase::Closed,
                    _,
                ) => self.closed(),
            };
        }
        match flags & (tcp::SYN | tcp::ACK) {
            tcp::SYN if from_initiator => {
                let counted = if self.syns() < 15 {
                    Self(self.0 + (1 << SYNS))
                } else {
                    self
                };
                match phase {
                    Phase::None => counted.with_phase(Phase::SynSent),
                    Phase::SynSent
                    | Phase::SynAck
                    | Phase::Established
                    | Phase::Midway
                    | Phase::Closed => counted,
                }
            }
            both if both == tcp::SYN | tcp::ACK && !from_initiator => match phase {
                Phase::None | Phase::SynSent => self.with_phase(Phase::SynAck),
                Phase::SynAck | Phase::Established | Phase::Midway | Phase::Closed => self,
            },
            tcp::ACK => {
                let moved = match (phase, from_initiator) {
                    (Phase::SynAck, _) | (Phase::SynSent, true) => {
                        self.with_phase(Phase::Established).answered()
                    }
                    (Phase::None | Phase::Midway, _) => {
                        let both = HEARD_INITIATOR | HEARD_RESPONDER;
                        if self.0 & both == both {
                            self.with_phase(Phase::Established).answered()
                        } else {
                            self.with_phase(Phase::Midway)
                        }
                    }
                    (Phase::SynSent, false) | (Phase::Established | Phase::Closed, _) => self,
                };
                if flags & tcp::FIN == 0 {
                    return moved;
                }
                let finished = Self(
                    moved.0
                        | if from_initiator {
                            FIN_INITIATOR
                        } else {
                            FIN_RESPONDER
                        },
                );
                let both = FIN_INITIATOR | FIN_RESPONDER;
                if finished.0 & both == both {
                    finished.closed()
                } else {
                    finished
                }
            }
            _ => self,
        }
    }

    /// The state after an ICMP error about a packet that `sender` had sent, or the same state: an error
    /// about an answer, or after an answer, is no failure of the flow.
    #[inline(always)]
    #[must_use]
    pub fn after_icmp_error(self, error: &Packet, sender: Side) -> Self {
        let Some(outcome) = icmp_error_outcome(error) else {
            return self;
        };
        self.failed(outcome, sender)
    }

    /// The state after a packet that `sender` sent failed with `outcome` before any answer.
    #[inline(always)]
    #[must_use]
    pub fn failed(self, outcome: Outcome, sender: Side) -> Self {
        if self.is_open() && sender == self.initiator() && !self.joined_midway() {
            self.with_outcome(outcome)
        } else {
            self
        }
    }

    /// Whether nobody has said yet what became of the flow.
    #[inline(always)]
    const fn is_open(self) -> bool {
        matches!(
            self.outcome(),
            Outcome::Pending | Outcome::NoAnswer | Outcome::OneWay
        )
    }

    /// The state after this host's kernel dropped a packet that `sender` sent. A dropped SYN-ACK is a
    /// failure too: no hook sees the handshake complete.
    #[inline(always)]
    #[must_use]
    pub fn after_drop(self, sender: Side) -> Self {
        if self.to_group() {
            // This host is one of many that it went to.
            return self;
        }
        if sender != self.initiator() && matches!(self.phase(), Phase::SynAck) {
            self.failed(Outcome::DroppedHere, self.initiator())
        } else {
            self.failed(Outcome::DroppedHere, sender)
        }
    }

    /// The state after nothing came for so long, see [`Times`].
    #[inline(always)]
    #[must_use]
    pub const fn after_silence(self, protocol: u8, times: &Times, answer_owed: bool) -> Self {
        if self.outcome() as u8 != Outcome::Pending as u8 || times.since_first < DECIDE_AFTER {
            return self;
        }
        match protocol {
            protocol::TCP => match self.phase() {
                // A lone SYN that its sender never repeats proves nothing: it was given up.
                Phase::SynSent if self.syns() < 2 => self,
                Phase::SynSent | Phase::SynAck => self.with_outcome(Outcome::NoAnswer),
                Phase::None | Phase::Established | Phase::Midway | Phase::Closed => self,
            },
            protocol::ICMP | protocol::ICMPV6 => self.with_outcome(Outcome::NoAnswer),
            _ if answer_owed => self.with_outcome(Outcome::NoAnswer),
            _ => self.with_outcome(Outcome::OneWay),
        }
    }

    /// Whether the record may go: nothing that is still to come would be taken for a new flow.
    #[inline(always)]
    #[must_use]
    pub const fn is_expired(self, protocol: u8, times: &Times) -> bool {
        times.since_last >= self.lifetime(protocol)
    }

    /// Nanoseconds of silence after which the record goes. A held flow stays longer, so that whoever looks for its name
    /// can release it first.
    #[inline(always)]
    #[must_use]
    pub const fn lifetime(self, protocol: u8) -> u64 {
        self.idle_limit(protocol) + if self.is_held() { HELD_LINGER } else { 0 }
    }

    #[inline(always)]
    const fn idle_limit(self, protocol: u8) -> u64 {
        const SECOND: u64 = 1_000_000_000;
        match protocol {
            protocol::TCP => match self.phase() {
                Phase::Closed => 5 * SECOND,
                // Linux repeats a SYN after 1, 2, 4, 8, 16 and 32 s (tcp_syn_retries), so the longest gap
                // is 64 s; a lone SYN not repeated within 30 s will not be.
                Phase::SynSent | Phase::SynAck if self.syns() > 1 => 70 * SECOND,
                Phase::SynSent | Phase::SynAck => 30 * SECOND,
                Phase::None | Phase::Midway => 60 * SECOND,
                // Idle pooled connections live for hours; RFC 5382 asks for 2 h 4 min at the least.
                Phase::Established => 24 * 3600 * SECOND,
            },
            protocol::ICMP | protocol::ICMPV6 => 30 * SECOND,
            // RFC 4787, REQ-5: two minutes at the least.
            _ => 120 * SECOND,
        }
    }

    /// The outcome that the flow has been counted under, if it has been decided.
    #[inline(always)]
    #[must_use]
    pub const fn decided(self) -> Option<Outcome> {
        match self.outcome() {
            Outcome::Pending => None,
            Outcome::ClosedAfterAnswer => Some(Outcome::Answered),
            Outcome::Answered
            | Outcome::Refused
            | Outcome::Prohibited
            | Outcome::Unreachable
            | Outcome::NoAnswer
            | Outcome::DroppedHere
            | Outcome::OneWay => Some(self.outcome()),
        }
    }

    /// The outcome to count when the state went from `before` to `self`, if the change decided one.
    #[inline(always)]
    #[must_use]
    pub const fn decided_since(self, before: Self) -> Option<Outcome> {
        let is = self.decided();
        match (before.decided(), is) {
            (Some(was), Some(now)) if was as u8 == now as u8 => None,
            _ => is,
        }
    }
}

/// How long a flow has been silent, nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Since its first packet.
    pub since_first: u64,
    /// Since its last packet in either direction.
    pub since_last: u64,
}

/// Silence after the first packet, in nanoseconds, that decides a flow whose answer is owed: late enough
/// for the SYN retransmissions after 1 s and 3 s (RFC 6298), early enough to say so within 4 s on a busy machine.
pub const DECIDE_AFTER: u64 = 3_200_000_000;

/// What an ICMP error says of the packet that it quotes; nothing if it does not say that the packet was
/// stopped for good (fragmentation needed, packet too big: path MTU discovery, RFC 1191 and RFC 8201).
///
/// Codes: RFC 792, RFC 1812 (section 5.2.7.1) and RFC 4443 (section 3.1).
#[inline(always)]
#[must_use]
pub const fn icmp_error_outcome(error: &Packet) -> Option<Outcome> {
    match (error.protocol, error.icmp_type, error.icmp_code) {
        (protocol::ICMP, 3, 3) | (protocol::ICMPV6, 1, 4) => Some(Outcome::Refused),
        (protocol::ICMP, 3, 9 | 10 | 13) | (protocol::ICMPV6, 1, 1 | 5 | 6) => {
            Some(Outcome::Prohibited)
        }
        (protocol::ICMP, 3, 4) | (protocol::ICMPV6, 2, _) => None,
        (protocol::ICMP, 3 | 11 | 12, _) | (protocol::ICMPV6, 1 | 3 | 4, _) => {
            Some(Outcome::Unreachable)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
