//! The coherence manager's registers (GCR) and the cluster power controller (CPC).
//!
//! All memory of the machine is coherent by construction, so what is left of these two blocks is how software
//! finds out what there is, and how one core starts and stops another: it writes the reset address of the
//! other core, tells the CPC to reset it, and reads its state.
//!
//! Revision 2.5 with one virtual processor a core: 32-bit registers, no VP_RUN.
//!
//! ```text
//! GCR  0x0000 global   0x2000 core-local   0x4000 core named in this core's CL_OTHER
//! CPC  0x0000 global   0x2000 core-local   0x4000 core named in this core's CL_OTHER
//! ```
//!
//! Source: the guest platform notes, section 5.

/// Physical address of the GCR block, as CMGCRBase says.
pub const GCR_BASE: u64 = 0x1fbf_8000;
/// Size of the GCR block in bytes, the L2-only sync page behind it included.
pub const GCR_BYTES: u64 = 0x9000;
/// Physical address of the CPC block.
pub const CPC_BASE: u64 = 0x1fbe_0000;
/// Size of the CPC block in bytes.
pub const CPC_BYTES: u64 = 0x8000;
/// Physical address of the GIC.
pub const GIC_BASE: u64 = 0x1fba_0000;

mod gcr {
    pub const CONFIG: u64 = 0x000;
    pub const BASE: u64 = 0x008;
    pub const ACCESS: u64 = 0x020;
    pub const REVISION: u64 = 0x030;
    pub const L2_ONLY_SYNC: u64 = 0x070;
    pub const GIC_BASE: u64 = 0x080;
    pub const CPC_BASE: u64 = 0x088;
    pub const GIC_STATUS: u64 = 0x0d0;
    pub const CPC_STATUS: u64 = 0x0f0;
    pub const LOCAL: u64 = 0x2000;
    pub const OTHER: u64 = 0x4000;
    pub const COHERENCE: u64 = 0x008;
    pub const CORE_OTHER: u64 = 0x018;
    pub const RESET_BASE: u64 = 0x020;
    pub const ID: u64 = 0x028;
}

mod cpc {
    pub const LOCAL: u64 = 0x2000;
    pub const OTHER: u64 = 0x4000;
    pub const COMMAND: u64 = 0x000;
    pub const STATUS: u64 = 0x008;
    pub const CORE_OTHER: u64 = 0x010;
}

/// Major 7, minor 0: CM 2.5.
const CM_REVISION: u32 = 0x0700;
const ENABLE: u32 = 1;
/// Power-down and clock-off are there, no debug probe.
const CPC_CAPABILITIES: u32 = 1 << 16 | 1 << 17;
const SEQUENCER_SHIFT: u32 = 19;
const CORE_OTHER_SHIFT_GCR: u32 = 16;
const CORE_OTHER_SHIFT_CPC: u32 = 16;

/// What the sequencer of a core is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Sequencer {
    /// D0: powered down.
    Off = 0,
    /// U2: clock off.
    ClockOff = 3,
    /// U6: up.
    Up = 7,
}

/// What a write makes the machine do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerAction {
    /// Nothing outside of these registers.
    None,
    /// Core `core` starts at this address (sign-extended), in its reset state.
    Start { core: usize, address: u64 },
    /// Core `core` stops.
    Stop { core: usize },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Core {
    coherence: u32,
    gcr_other: u32,
    cpc_other: u32,
    reset_base: u32,
    sequencer: Sequencer,
}

/// Both blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoherenceManager {
    base_low: u32,
    access: u32,
    l2_only_sync: u32,
    gic_base: u32,
    cpc_base: u32,
    cores: Vec<Core>,
}

impl CoherenceManager {
    /// Registers for `cores` cores (1 to 32), of which core 0 is up.
    pub fn new(cores: usize) -> CoherenceManager {
        assert!((1..=32).contains(&cores), "1 to 32 cores, not {cores}");
        let core = |number| Core {
            coherence: if number == 0 { 0xff } else { 0 },
            gcr_other: 0,
            cpc_other: 0,
            reset_base: 0xbfc0_0000,
            sequencer: if number == 0 { Sequencer::Up } else { Sequencer::Off },
        };
        CoherenceManager {
            base_low: 0,
            access: 1,
            l2_only_sync: 0,
            gic_base: GIC_BASE as u32,
            cpc_base: CPC_BASE as u32,
            cores: (0..cores).map(core).collect(),
        }
    }

    /// What core `core` reads at `offset` of the GCR block.
    pub fn read_gcr(&self, core: usize, offset: u64) -> u32 {
        match offset {
            gcr::CONFIG => self.cores.len() as u32 - 1,
            gcr::BASE => GCR_BASE as u32 | self.base_low,
            gcr::ACCESS => self.access,
            gcr::REVISION => CM_REVISION,
            gcr::L2_ONLY_SYNC => self.l2_only_sync,
            gcr::GIC_BASE => self.gic_base,
            gcr::CPC_BASE => self.cpc_base,
            gcr::GIC_STATUS | gcr::CPC_STATUS => 1,
            gcr::LOCAL..gcr::OTHER => self.read_core_gcr(core, offset - gcr::LOCAL),
            gcr::OTHER..0x6000 => self.read_core_gcr(self.gcr_other(core), offset - gcr::OTHER),
            _ => 0,
        }
    }

    fn read_core_gcr(&self, number: usize, offset: u64) -> u32 {
        let Some(core) = self.cores.get(number) else { return 0 };
        match offset {
            gcr::COHERENCE => core.coherence,
            gcr::CORE_OTHER => core.gcr_other,
            gcr::RESET_BASE => core.reset_base,
            gcr::ID => number as u32,
            _ => 0,
        }
    }

    /// Core `core` writes at `offset` of the GCR block.
    pub fn write_gcr(&mut self, core: usize, offset: u64, value: u32) {
        match offset {
            gcr::BASE => self.base_low = value & 0x7fff,
            gcr::ACCESS => self.access = value,
            gcr::L2_ONLY_SYNC => self.l2_only_sync = value,
            gcr::GIC_BASE => self.gic_base = value & 0xfffe_0001,
            gcr::CPC_BASE => self.cpc_base = value & 0xffff_8001,
            gcr::LOCAL..gcr::OTHER => self.write_core_gcr(core, offset - gcr::LOCAL, value),
            gcr::OTHER..0x6000 => self.write_core_gcr(self.gcr_other(core), offset - gcr::OTHER, value),
            _ => {}
        }
    }

    fn write_core_gcr(&mut self, number: usize, offset: u64, value: u32) {
        let Some(core) = self.cores.get_mut(number) else { return };
        match offset {
            gcr::COHERENCE => core.coherence = value & 0xff,
            gcr::CORE_OTHER => core.gcr_other = value,
            gcr::RESET_BASE => core.reset_base = value & !0xfff,
            _ => {}
        }
    }

    /// What core `core` reads at `offset` of the CPC block.
    pub fn read_cpc(&self, core: usize, offset: u64) -> u32 {
        let (number, offset) = self.cpc_core(core, offset);
        let Some(core) = self.cores.get(number) else { return 0 };
        match offset {
            cpc::STATUS => CPC_CAPABILITIES | (core.sequencer as u32) << SEQUENCER_SHIFT,
            cpc::CORE_OTHER => core.cpc_other,
            _ => 0,
        }
    }

    /// Core `core` writes at `offset` of the CPC block.
    pub fn write_cpc(&mut self, core: usize, offset: u64, value: u32) -> PowerAction {
        let (number, offset) = self.cpc_core(core, offset);
        let Some(core) = self.cores.get_mut(number) else { return PowerAction::None };
        match (offset, value) {
            (cpc::CORE_OTHER, _) => core.cpc_other = value,
            (cpc::COMMAND, 1) => return core.stop(number, Sequencer::ClockOff),
            (cpc::COMMAND, 2) => return core.stop(number, Sequencer::Off),
            (cpc::COMMAND, 3 | 4) => return core.start(number),
            _ => {}
        }
        PowerAction::None
    }

    /// Whether the kernel has switched the GIC on, so that it answers.
    pub fn gic_enabled(&self) -> bool {
        self.gic_base & ENABLE != 0
    }

    fn gcr_other(&self, core: usize) -> usize {
        (self.cores[core].gcr_other >> CORE_OTHER_SHIFT_GCR) as usize
    }

    fn cpc_core(&self, core: usize, offset: u64) -> (usize, u64) {
        match offset {
            cpc::LOCAL..cpc::OTHER => (core, offset - cpc::LOCAL),
            cpc::OTHER..0x6000 => {
                ((self.cores[core].cpc_other >> CORE_OTHER_SHIFT_CPC & 0xff) as usize, offset - cpc::OTHER)
            }
            _ => (usize::MAX, offset),
        }
    }
}

impl Core {
    fn start(&mut self, number: usize) -> PowerAction {
        self.sequencer = Sequencer::Up;
        self.coherence = 0;
        PowerAction::Start { core: number, address: self.reset_base as i32 as u64 }
    }

    fn stop(&mut self, number: usize, sequencer: Sequencer) -> PowerAction {
        self.sequencer = sequencer;
        self.coherence = 0;
        PowerAction::Stop { core: number }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_is_started_as_linux_does_it() {
        let mut cm = CoherenceManager::new(4);
        assert_eq!(cm.read_gcr(0, gcr::CONFIG), 3);
        assert_eq!(u64::from(cm.read_gcr(0, gcr::BASE)), GCR_BASE);
        cm.write_gcr(0, gcr::LOCAL + gcr::CORE_OTHER, 2 << 16);
        cm.write_gcr(0, gcr::OTHER + gcr::RESET_BASE, 0xa010_0123);
        cm.write_cpc(0, cpc::LOCAL + cpc::CORE_OTHER, 2 << 16);
        assert_eq!(cm.read_cpc(0, cpc::OTHER + cpc::STATUS) >> SEQUENCER_SHIFT & 15, 0);
        let action = cm.write_cpc(0, cpc::OTHER + cpc::COMMAND, 4);
        assert_eq!(action, PowerAction::Start { core: 2, address: 0xffff_ffff_a010_0000 });
        assert_eq!(cm.read_cpc(0, cpc::OTHER + cpc::STATUS) >> SEQUENCER_SHIFT & 15, 7);
        assert_eq!(cm.read_gcr(2, gcr::LOCAL + gcr::ID), 2);
        assert_eq!(cm.write_cpc(2, cpc::LOCAL + cpc::COMMAND, 2), PowerAction::Stop { core: 2 });
    }

    #[test]
    fn a_core_that_does_not_exist_reads_zero_and_does_nothing() {
        let mut cm = CoherenceManager::new(2);
        cm.write_gcr(0, gcr::LOCAL + gcr::CORE_OTHER, 9 << 16);
        cm.write_cpc(0, cpc::LOCAL + cpc::CORE_OTHER, 9 << 16);
        assert_eq!(cm.read_gcr(0, gcr::OTHER + gcr::ID), 0);
        assert_eq!(cm.write_cpc(0, cpc::OTHER + cpc::COMMAND, 4), PowerAction::None);
    }
}
