//! Whether a network's memory fits on its devices, before any of it is allocated.

use crate::{network::Network, resident::Layout};
use alexnode_core::{DeviceName, Engine, Error, Result, SlotInfo};

/// What is asked of the devices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand<'a> {
    /// The network.
    pub network: &'a Network,
    /// Samples of a minibatch.
    pub batch: usize,
    /// Where it is to reside.
    pub slots: &'a [SlotInfo],
}

/// A device on which more is needed than is free.
struct Shortage {
    device: DeviceName,
    need: usize,
    free: usize,
}

impl Demand<'_> {
    /// What `build` makes for the batch and the engines of the slots, if the memory that `layout` tells fits: slots on one device share what is free.
    ///
    /// # Errors
    /// `ERR_DEVICE` with the bytes needed, the bytes free and the largest batch that fits; those of `build`.
    pub fn plans<P>(self, build: impl Fn(usize, &[Engine]) -> Result<P>, layout: impl Fn(&P) -> Layout) -> Result<P> {
        let engines: Vec<_> = self.slots.iter().map(|slot| slot.engine).collect();
        let plans = build(self.batch, &engines)?;
        let Some(Shortage { device, need, free }) = self.shortage(&layout(&plans)) else { return Ok(plans) };
        let name = self.network.name();
        let message = format!(
            "{device}: {name} at batch {} needs {}, {} are free",
            self.batch,
            size(need, usize::div_ceil),
            size(free, |bytes, unit| bytes / unit)
        );
        let hint = match self.largest(|batch| Ok(layout(&build(batch, &engines)?)))? {
            0 => {
                "Not even one image per step fits: use smaller images, a smaller network or another device.".to_owned()
            }
            batch => format!("The largest batch that fits is {batch}: use `--batch {batch}`, or end other programs."),
        };
        Err(Error::device(message).hint(hint))
    }

    fn shortage(&self, layout: &Layout) -> Option<Shortage> {
        let memory = layout.memory();
        self.slots.iter().find_map(|slot| {
            let (device, free) = (slot.device, slot.free?);
            let sharing = self.slots.iter().zip(&memory).filter(|(other, _)| other.device == device);
            let need = sharing.map(|(_, memory)| memory.total_bytes).sum();
            (need > free).then_some(Shortage { device, need, free })
        })
    }

    /// The largest batch below this one that fits, or 0.
    fn largest(&self, layout: impl Fn(usize) -> Result<Layout>) -> Result<usize> {
        let (mut fits, mut too_much) = (0, self.batch);
        while too_much - fits > 1 {
            let middle = fits.midpoint(too_much);
            match self.shortage(&layout(middle)?) {
                None => fits = middle,
                Some(_) => too_much = middle,
            }
        }
        Ok(fits)
    }
}

/// In MiB.
fn size(bytes: usize, divide: fn(usize, usize) -> usize) -> String {
    format!("{} MiB", divide(bytes, 1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{placement::Placement, resident::Plans};
    use alexnode_core::ErrorCode;
    use serde_json::json;

    fn network() -> Network {
        let spec = json!({
            "name": "two layers", "classes": 10,
            "input": { "imageSize": 40, "cropSize": 32, "flip": true, "noiseDivisor": 1, "scale": 1 },
            "layers": [
                { "type": "conv2d", "name": "conv1", "outChannels": 64, "kernelSize": 3, "weightInit": { "type": "he" } },
                { "type": "linear", "name": "fc2", "outFeatures": 10, "weightInit": { "type": "he" } },
            ],
        });
        Network::new(serde_json::from_value(spec).unwrap()).unwrap()
    }

    fn slots(free: &[(DeviceName, Option<usize>)]) -> Vec<SlotInfo> {
        let engine = Engine::Host { workers: 1 };
        let slot = |&(device, free)| SlotInfo { device, description: String::new(), engine, free };
        free.iter().map(slot).collect()
    }

    fn demand(batch: usize, free: &[(DeviceName, Option<usize>)]) -> Result<Vec<usize>> {
        let (network, slots) = (network(), slots(free));
        let placement = Placement::new(slots.len()).unwrap();
        let demand = Demand { network: &network, batch, slots: &slots };
        let build = |batch, engines: &[Engine]| Plans::build(&network, placement, batch, 0.9, false, engines);
        let plans = demand.plans(build, Plans::layout)?;
        Ok(plans.layout().memory().iter().map(|memory| memory.total_bytes).collect())
    }

    #[test]
    fn the_largest_batch_that_fits_is_named() {
        let device = DeviceName::Cuda(0);
        let need = |batch| demand(batch, &[(device, None)]).unwrap()[0];
        assert!(demand(128, &[(device, Some(need(128)))]).is_ok());
        let error = demand(128, &[(device, Some(need(77)))]).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Device);
        let (mib, free) = (need(128).div_ceil(1 << 20), need(77) >> 20);
        assert_eq!(error.message(), format!("cuda:0: two layers at batch 128 needs {mib} MiB, {free} MiB are free"));
        assert!(error.remedy().unwrap().contains("`--batch 77`"), "{error}");
        assert!(demand(77, &[(device, Some(need(77)))]).is_ok());
        let error = demand(128, &[(device, Some(need(1) - 1))]).unwrap_err();
        assert!(error.remedy().unwrap().contains("Not even one image"), "{error}");
    }

    #[test]
    fn slots_on_one_device_share_its_memory() {
        let (a, b) = (DeviceName::Cuda(0), DeviceName::Cuda(1));
        let [first, second] = demand(64, &[(a, None), (a, None)]).unwrap()[..] else { panic!("two slots") };
        let most = first.max(second);
        assert!(demand(64, &[(a, Some(most)), (b, Some(most))]).is_ok());
        assert!(demand(64, &[(a, Some(most)), (a, Some(most))]).is_err());
        assert!(demand(64, &[(a, Some(first + second)), (a, Some(first + second))]).is_ok());
        let error = demand(64, &[(a, Some(most)), (b, Some(second / 2))]).unwrap_err();
        assert!(error.message().starts_with("cuda:1: "), "{error}");
    }
}
