//! Values as they stand in the file, and back. SQLite's integers have a sign, its addresses are bytes, and a text that
//! means nothing to this version is a damaged file, not a guess.

use std::net::IpAddr;

use flowproof_common::address::Address;
use flowproof_common::classify::Verdict;
use flowproof_common::state::Outcome;
use rusqlite::Row;
use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};

use crate::verdict::requirement::{Failure, Place, State, Vantage};
use crate::verdict::window::GapKind;

/// A count or a time; beyond 2^63, as much as there can be.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The same of what may be missing.
pub(super) fn maybe(number: Option<u64>) -> Option<i64> {
    number.map(int)
}

/// The bytes of an address: 4 or 16.
pub(super) fn bytes(address: Address) -> Vec<u8> {
    match IpAddr::from(address) {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Reads columns one after the other.
pub(super) struct Columns<'a> {
    row: &'a Row<'a>,
    next: usize,
}

impl<'a> Columns<'a> {
    pub(super) fn of(row: &'a Row<'a>) -> Self {
        Self { row, next: 0 }
    }

    fn value<T>(
        &mut self,
        read: impl FnOnce(ValueRef<'a>) -> FromSqlResult<T>,
    ) -> rusqlite::Result<T> {
        let position = self.next;
        self.next += 1;
        let value = self.row.get_ref(position)?;
        let kind = value.data_type();
        read(value).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(position, kind, Box::new(error))
        })
    }

    pub(super) fn uint(&mut self) -> rusqlite::Result<u64> {
        self.value(read_uint)
    }

    pub(super) fn small<T: TryFrom<u64>>(&mut self) -> rusqlite::Result<T> {
        self.value(|value| T::try_from(read_uint(value)?).map_err(|_| FromSqlError::InvalidType))
    }

    pub(super) fn time(&mut self) -> rusqlite::Result<Option<u64>> {
        self.value(|value| {
            if value == ValueRef::Null {
                Ok(None)
            } else {
                read_uint(value).map(Some)
            }
        })
    }

    pub(super) fn flag(&mut self) -> rusqlite::Result<bool> {
        self.uint().map(|flag| flag != 0)
    }

    pub(super) fn text(&mut self) -> rusqlite::Result<String> {
        self.value(|value| value.as_str().map(str::to_owned))
    }

    pub(super) fn maybe_text(&mut self) -> rusqlite::Result<Option<String>> {
        self.value(|value| Ok(value.as_str_or_null()?.map(str::to_owned)))
    }

    fn named<T>(&mut self, of_name: impl Fn(&str) -> Option<T>) -> rusqlite::Result<Option<T>> {
        self.value(|value| match value.as_str_or_null()? {
            None => Ok(None),
            Some(name) => of_name(name).map(Some).ok_or(FromSqlError::InvalidType),
        })
    }

    fn present<T>(&self, value: Option<T>) -> rusqlite::Result<T> {
        value.ok_or_else(|| {
            rusqlite::Error::FromSqlConversionFailure(
                self.next - 1,
                rusqlite::types::Type::Null,
                Box::new(FromSqlError::InvalidType),
            )
        })
    }

    pub(super) fn state(&mut self) -> rusqlite::Result<Option<State>> {
        self.named(State::of_name)
    }

    pub(super) fn vantage(&mut self) -> rusqlite::Result<Option<Vantage>> {
        self.named(Vantage::of_name)
    }

    pub(super) fn gap_kind(&mut self) -> rusqlite::Result<GapKind> {
        let kind = self.named(GapKind::of_name)?;
        self.present(kind)
    }

    pub(super) fn verdict(&mut self) -> rusqlite::Result<Verdict> {
        let verdict = self.named(|name| {
            Verdict::ALL
                .into_iter()
                .find(|verdict| verdict.name() == name)
        })?;
        self.present(verdict)
    }

    pub(super) fn address(&mut self) -> rusqlite::Result<Address> {
        self.value(|value| {
            let bytes = value.as_blob()?;
            let address = <[u8; 4]>::try_from(bytes)
                .map(IpAddr::from)
                .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
            address
                .map(Address::from)
                .map_err(|_| FromSqlError::InvalidBlobSize {
                    expected_size: 16,
                    blob_size: bytes.len(),
                })
        })
    }

    /// Four columns: time, outcome, place, and whether somebody told.
    pub(super) fn failure(&mut self) -> rusqlite::Result<Option<Failure>> {
        let at = self.time()?;
        let outcome = self.named(|name| {
            Outcome::ALL
                .into_iter()
                .find(|outcome| outcome.name() == name)
        })?;
        let place = self.named(Place::of_text)?;
        let told = self.time()?.is_some_and(|told| told != 0);
        Ok(at.zip(outcome).map(|(at, outcome)| Failure {
            at,
            outcome,
            place,
            told,
        }))
    }
}

fn read_uint(value: ValueRef<'_>) -> FromSqlResult<u64> {
    let number = value.as_i64()?;
    u64::try_from(number).map_err(|_| FromSqlError::OutOfRange(number))
}

/// Pairs of addresses as text.
pub(super) fn write_samples(samples: &[[Address; 2]]) -> String {
    let lines: Vec<_> = samples
        .iter()
        .map(|[initiator, responder]| format!("{initiator} {responder}"))
        .collect();
    lines.join("\n")
}

/// Pairs of addresses from text; lines that are none are left out.
pub(super) fn read_samples(text: &str) -> Vec<[Address; 2]> {
    let address = |text: &str| text.parse::<IpAddr>().ok().map(Address::from);
    text.lines()
        .filter_map(|line| {
            let (initiator, responder) = line.split_once(' ')?;
            Some([address(initiator)?, address(responder)?])
        })
        .collect()
}
