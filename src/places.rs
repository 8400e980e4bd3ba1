//! Places by peer address: one peer cannot take those of all.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// So many places for each peer. Clones share them.
#[derive(Clone)]
pub struct Places {
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    most: usize,
}

/// One of a peer's places, until it is dropped.
pub struct Place {
    places: Places,
    peer: IpAddr,
}

impl Places {
    /// `most` places for each peer.
    pub fn new(most: usize) -> Places {
        Places {
            taken: Arc::default(),
            most,
        }
    }

    /// A place of this peer, if it has one left.
    pub fn take(&self, peer: IpAddr) -> Option<Place> {
        let peer = peer_of(peer);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(peer).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place {
            places: self.clone(),
            peer,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let taken = &self.places.taken;
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.peer) {
            *count -= 1;
            // The map has entries of connected peers alone: it is bounded by the connections.
            if *count == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

/// IPv4 in IPv6 is that IPv4 address; of IPv6 the network counts, since one host has all of a /64.
fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_its_places_and_no_others() {
        let places = Places::new(2);
        let take = |peer: &str| places.take(peer.parse().unwrap());
        let first = take("10.0.0.1").unwrap();
        let _mapped = take("::ffff:10.0.0.1").unwrap();
        assert!(take("10.0.0.1").is_none());
        assert!(take("10.0.0.2").is_some());
        drop(first);
        let again = take("10.0.0.1");
        assert!(again.is_some());

        let _a = take("2001:db8::1").unwrap();
        let _b = take("2001:db8::ffff:2").unwrap();
        assert!(take("2001:db8::3").is_none(), "one /64 is one peer");
        assert!(take("2001:db8:0:1::3").is_some());
    }

    #[test]
    fn peers_that_have_left_take_no_memory() {
        let places = Places::new(1);
        for n in 0..1000_u32 {
            let peer = IpAddr::from(n.to_be_bytes());
            assert!(places.take(peer).is_some());
        }
        assert!(places.taken.lock().unwrap().is_empty());
    }
}
