//! What driver and device agree on: features, configuration, queues, vectors.
#![forbid(unsafe_code)]
use super::error::BringUpError;
use super::{Cache, Link, Reached, Wishes, config};
use crate::geometry::Geometry;
use crate::interrupt::{InterruptGrant, Limit, VectorPlan, vector_of};
use crate::platform::Platform;
use crate::spec::{self, Features, NO_VECTOR, feature, status};
use crate::transport::{MAX_QUEUES, QueueId, Transport};
use arrayvec::ArrayVec;

/// Accepted whenever it is offered, whatever is wished for.
const DESCRIPTIVE: u64 = feature::VERSION_1
    | feature::ACCESS_PLATFORM
    | feature::RO
    | feature::BLK_SIZE
    | feature::SIZE_MAX
    | feature::SEG_MAX;

/// Which of the offered features are accepted: implemented, and wished for or descriptive.
fn choose(offered: Features, wished: Features) -> Features {
    let accepted = offered.and(Features::IMPLEMENTED).and(Features(wished.0 | DESCRIPTIVE));
    // A cache that can be switched on but not flushed is of no use to anyone.
    if accepted.has(feature::FLUSH) { accepted } else { accepted.without(feature::CONFIG_WCE) }
}

/// What driver and device have to say about features.
struct Agreed {
    offered: Features,
    accepted: Features,
    /// `FEATURES_OK` read back.
    taken: bool,
    /// Accepted because the device refused to go on without.
    insisted: Features,
}

/// What was agreed on, besides the geometry.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) plan: VectorPlan,
    pub(super) reached: Reached,
    pub(super) sizes: ArrayVec<u16, { MAX_QUEUES as usize }>,
}

impl<T: Transport> Link<T> {
    /// Steps 1 to 6 of 3.1.1 and the discovery of step 7.
    pub(super) fn negotiate(
        &mut self,
        platform: &impl Platform,
        wishes: &Wishes,
        grants: &[InterruptGrant],
    ) -> Result<(Geometry, Terms), BringUpError> {
        if !wishes.queue_size.is_power_of_two() {
            return Err(BringUpError::WishedQueueSize(wishes.queue_size));
        }
        let agreed = self.agree(platform, wishes.features)?;
        if let Some(write_back) = wishes.write_back
            && agreed.accepted.has(feature::CONFIG_WCE)
        {
            self.transport.set_config_u8(spec::config::WRITEBACK, u8::from(write_back))?;
        }
        let facts = config::read(&self.transport, agreed.accepted)?;
        let terms = self.discover(wishes, &agreed, &facts, grants)?;
        Ok((facts.geometry, terms))
    }

    /// Steps 1 to 6: a device that refuses some of what it offers is reset, and asked once more with all of it that is
    /// implemented: some insist on features that drivers may leave out (2.2). Nothing else is ever accepted.
    fn agree(&mut self, platform: &impl Platform, wished: Features) -> Result<Agreed, BringUpError> {
        let mut agreed = self.propose(platform, wished)?;
        let left_out = choose(agreed.offered, Features::IMPLEMENTED).without(agreed.accepted.0);
        if !agreed.taken && left_out != Features::default() {
            agreed = Agreed { insisted: left_out, ..self.propose(platform, Features::IMPLEMENTED)? };
        }
        let Agreed { offered, accepted, taken, .. } = agreed;
        if taken { Ok(agreed) } else { Err(BringUpError::FeaturesRefused { offered, accepted }) }
    }

    /// A reset, and whether the device takes what it offers of `wished`.
    fn propose(&mut self, platform: &impl Platform, wished: Features) -> Result<Agreed, BringUpError> {
        self.reset(platform)?;
        self.raise(status::ACKNOWLEDGE)?;
        self.raise(status::DRIVER)?;
        let offered = self.transport.device_features()?;
        if !offered.has(feature::VERSION_1) {
            return Err(BringUpError::Legacy);
        }
        let accepted = choose(offered, wished);
        self.transport.set_driver_features(accepted)?;
        self.raise(status::FEATURES_OK)?;
        let taken = self.transport.status()? & status::FEATURES_OK != 0;
        Ok(Agreed { offered, accepted, taken, insisted: Features::default() })
    }

    /// Which queues there are, how large, and what interrupts for them.
    fn discover(
        &mut self,
        wishes: &Wishes,
        agreed: &Agreed,
        facts: &config::Facts,
        grants: &[InterruptGrant],
    ) -> Result<Terms, BringUpError> {
        let queues_wished = wishes.queues.max(1);
        let device_queues = facts.queues.min(self.transport.num_queues()?);
        if device_queues == 0 {
            return Err(BringUpError::NoSuchQueue(QueueId(0)));
        }
        let queues = queues_wished.min(device_queues).min(MAX_QUEUES);
        let mut sizes = ArrayVec::new();
        for queue in (0..queues).map(QueueId) {
            sizes.push(self.queue_size(queue, wishes.queue_size)?);
        }
        let plan = self.map_vectors(VectorPlan::best(grants, queues, wishes.mode))?;
        sizes.truncate(plan.queues() as usize);
        let limited_by = match plan.queues() {
            n if n == queues_wished => Limit::Submitters,
            n if n < queues => Limit::Vectors,
            n if n == device_queues => Limit::Device,
            _ => Limit::Driver,
        };
        let reached = Reached {
            mode: plan.mode(),
            rung: plan.rung(),
            vectors: plan.grants().len() as u16,
            queues: plan.queues(),
            queues_wished,
            limited_by,
            cache: Cache::of(agreed.offered, &facts.geometry),
            insisted: agreed.insisted,
            unusable: facts.unusable,
        };
        Ok(Terms { plan, reached, sizes })
    }

    fn queue_size(&mut self, queue: QueueId, wished: u16) -> Result<u16, BringUpError> {
        match self.transport.queue_max_size(queue)? {
            0 => Err(BringUpError::NoSuchQueue(queue)),
            size if !size.is_power_of_two() => Err(BringUpError::QueueSize { queue, size }),
            size => Ok(size.min(wished)),
        }
    }

    /// Maps what the plan says; when the device has had enough, takes everything back and falls to the next plan. Each
    /// has fewer vectors than the one before, so this ends, at the latest without a vector.
    fn map_vectors(&mut self, mut plan: VectorPlan) -> Result<VectorPlan, BringUpError> {
        while let Some(held) = self.map(&plan)? {
            self.transport.set_config_vector(NO_VECTOR)?;
            for queue in (0..plan.queues()).map(QueueId) {
                self.transport.set_queue_vector(queue, NO_VECTOR)?;
            }
            plan = plan.after_refusal(held);
        }
        Ok(plan)
    }

    /// Maps configuration and queues. `Some(held)`: after that many vectors the device had no more.
    fn map(&mut self, plan: &VectorPlan) -> Result<Option<usize>, BringUpError> {
        let Some(configuration) = plan.configuration() else { return Ok(None) };
        if !took(configuration.vector, self.transport.set_config_vector(configuration.vector)?)? {
            return Ok(Some(0));
        }
        for queue in (0..plan.queues()).map(QueueId) {
            let vector = vector_of(plan.queue(queue));
            if vector != NO_VECTOR && !took(vector, self.transport.set_queue_vector(queue, vector)?)? {
                // The configuration's, and one for each queue before this one as long as there were more.
                return Ok(Some(plan.grants().len().min(1 + queue.0 as usize)));
            }
        }
        Ok(None)
    }
}

/// Whether a vector was taken, by what reads back.
fn took(written: u16, read: u16) -> Result<bool, BringUpError> {
    match read {
        read if read == written => Ok(true),
        NO_VECTOR => Ok(false),
        read => Err(BringUpError::Vector { written, read }),
    }
}
