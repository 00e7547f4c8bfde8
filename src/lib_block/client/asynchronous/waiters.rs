//! Futures that wait for credit: first come, first served, without allocation.
//!
//! A place is *granted* to the front when there is credit for it; a grant is a reservation, which whoever gives it up
//! without use passes on. So no wake is lost, and who came late overtakes nobody.
use core::task::Waker;

enum Place {
    Free,
    Queued(Waker),
    /// Its future was dropped; it goes when it comes to the front.
    Dead,
    Granted,
}

/// `N` places.
pub(super) struct Waiters<const N: usize> {
    places: [Place; N],
    free: [u16; N],
    free_count: usize,
    /// Places in their order, from `front` on, around the end.
    queue: [u16; N],
    front: usize,
    queued: usize,
    granted: u32,
}

impl<const N: usize> Waiters<N> {
    pub(super) fn new() -> Self {
        Self {
            places: [const { Place::Free }; N],
            free: core::array::from_fn(|at| at as u16),
            free_count: N,
            queue: [0; N],
            front: 0,
            queued: 0,
            granted: 0,
        }
    }

    /// Whether nobody waits, and so someone new is next.
    pub(super) fn is_empty(&self) -> bool {
        self.queued == 0
    }

    /// Credit that is reserved.
    pub(super) fn granted(&self) -> u32 {
        self.granted
    }

    /// A place at the end; `None` if there is none.
    pub(super) fn join(&mut self, waker: Waker) -> Result<u16, Waker> {
        let Some(left) = self.free_count.checked_sub(1) else { return Err(waker) };
        self.free_count = left;
        let place = self.free[left];
        self.places[usize::from(place)] = Place::Queued(waker);
        self.queue[(self.front + self.queued) % N] = place;
        self.queued += 1;
        Ok(place)
    }

    /// Another waker for a place; gives back the one that is not needed.
    pub(super) fn renew(&mut self, place: u16, waker: Waker) -> Waker {
        match &mut self.places[usize::from(place)] {
            Place::Queued(old) => core::mem::replace(old, waker),
            _ => waker,
        }
    }

    /// Grants the front its turn; its waker.
    pub(super) fn grant(&mut self) -> Option<Waker> {
        while self.queued > 0 {
            let place = self.queue[self.front];
            self.front = (self.front + 1) % N;
            self.queued -= 1;
            match core::mem::replace(&mut self.places[usize::from(place)], Place::Granted) {
                Place::Queued(waker) => {
                    self.granted += 1;
                    return Some(waker);
                }
                _ => self.vacate(place),
            }
        }
        None
    }

    pub(super) fn is_granted(&self, place: u16) -> bool {
        matches!(self.places[usize::from(place)], Place::Granted)
    }

    /// Gives a place up, with its grant if it has one; its waker, to be dropped where that may run code.
    pub(super) fn leave(&mut self, place: u16) -> Option<Waker> {
        match core::mem::replace(&mut self.places[usize::from(place)], Place::Dead) {
            Place::Queued(waker) => Some(waker),
            Place::Granted => {
                self.granted -= 1;
                self.vacate(place);
                None
            }
            Place::Dead | Place::Free => None,
        }
    }

    fn vacate(&mut self, place: u16) {
        self.places[usize::from(place)] = Place::Free;
        self.free[self.free_count] = place;
        self.free_count += 1;
    }
}
