//! Where this host stands to each row, kept from round to round: it only changes with the matrix, the host's addresses and what
//! comes by, and is too much work to find out every second.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;

use crate::matrix::installed::Installed;
use crate::verdict::stance::Stances;

/// What the daemon knows of its place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Place {
    /// The name of the site.
    site: Arc<str>,
    /// The host's addresses.
    own: Arc<[IpAddr]>,
    /// What is seen from here; nothing: all.
    observe: Arc<[IpNet]>,
}

/// The place of this host in the site.
#[derive(Debug, Clone, Default)]
pub struct Whereabouts {
    /// The name of the site; empty without one.
    pub site: Arc<str>,
    /// Where it stands to the rows of the matrix in force.
    pub stances: Arc<Stances>,
}

/// What was found out last, and from what.
type Found = (Place, Arc<Installed>, Arc<Stances>);

/// Keeps [`Whereabouts`] up to date.
#[derive(Debug, Default)]
pub struct Keeper {
    place: Mutex<Place>,
    found: Mutex<Option<Found>>,
}

impl Keeper {
    /// Notes the name of the site.
    pub fn set_site(&self, site: &str) {
        self.change(|place| place.site = site.into());
    }

    /// Notes what is seen from here (nothing: all), and the host's addresses.
    pub fn set_sight(&self, observe: Vec<IpNet>, own: Vec<IpAddr>) {
        self.change(|place| {
            place.observe = observe.into();
            place.own = own.into();
        });
    }

    fn change(&self, change: impl FnOnce(&mut Place)) {
        change(&mut self.place.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What is seen from here; nothing: all.
    #[must_use]
    pub fn observe(&self) -> Arc<[IpNet]> {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&place.observe)
    }

    /// The whereabouts under a matrix.
    #[must_use]
    pub fn of(&self, matrix: &Arc<Installed>) -> Whereabouts {
        let place = self
            .place
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let stances = match &*found {
            Some((of, installed, stances)) if *of == place && Arc::ptr_eq(installed, matrix) => {
                Arc::clone(stances)
            }
            Some(_) | None => {
                let stances = Arc::new(Stances::new(matrix, &place.own, &place.observe));
                *found = Some((place.clone(), Arc::clone(matrix), Arc::clone(&stances)));
                stances
            }
        };
        Whereabouts {
            site: place.site,
            stances,
        }
    }
}
