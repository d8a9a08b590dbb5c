//! Following one TLB miss through all its steps.
//!
//! A vCPU that is followed keeps a [`Follower`]. It starts to record at every miss and goes on, one guest
//! instruction at a time, until the instruction that missed has been executed. If the miss turns out to be
//! of the kind that was asked for, the record is the answer; otherwise it is thrown away. The hot path knows
//! nothing of this: only trap handlers ask whether there is a follower.

/// A value of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number or an address.
    Number(u64),
    /// A word.
    Text(&'static str),
    /// Yes or no.
    Flag(bool),
}

impl From<u64> for Value {
    fn from(value: u64) -> Value {
        Value::Number(value)
    }
}
impl From<&'static str> for Value {
    fn from(value: &'static str) -> Value {
        Value::Text(value)
    }
}
impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Flag(value)
    }
}

/// One step of a miss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What happened, such as `"l2tlb"` or `"instruction"`.
    pub kind: &'static str,
    /// When, in cycles of the CPU that took the miss.
    pub cycle: u64,
    /// Cycles since the step before: all steps together have all cycles of the miss.
    pub cycles: u64,
    /// The values of this step, by name.
    pub values: Vec<(&'static str, Value)>,
}

/// Which misses to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissKind {
    /// The next one.
    Any,
    /// Answered by the second-level TLB.
    L2Tlb,
    /// Forwarded to the guest's refill handler.
    Forwarded,
    /// In a segment that the guest does not map.
    Kernel,
    /// Needed a page that was absent.
    PageFault,
}

impl MissKind {
    /// The kinds with the names that users give.
    pub const NAMES: [(&'static str, MissKind); 5] = [
        ("any", MissKind::Any),
        ("l2tlb", MissKind::L2Tlb),
        ("forwarded", MissKind::Forwarded),
        ("kernel", MissKind::Kernel),
        ("page fault", MissKind::PageFault),
    ];
}

/// Steps after which a record is given up: a guest handler is a few dozen instructions.
const STEPS_MAX: usize = 20_000;

/// Records misses of one vCPU until one is of the wanted kind.
#[derive(Debug)]
pub struct Follower {
    wanted: MissKind,
    record: Option<Record>,
    /// What the monitor has charged since the last step.
    charged: u64,
}

#[derive(Debug)]
struct Record {
    /// Address of the instruction that missed.
    pc: u64,
    steps: Vec<Step>,
}

impl Follower {
    /// Waits for a miss of that kind.
    pub fn new(wanted: MissKind) -> Follower {
        Follower { wanted, record: None, charged: 0 }
    }

    /// Whether a miss is being recorded, so that the guest must go one instruction at a time.
    pub fn is_recording(&self) -> bool {
        self.record.is_some()
    }

    /// The vCPU traps. If nothing is being recorded, a miss may begin here.
    pub fn trapped(&mut self) {
        if self.record.is_none() {
            self.charged = 0;
        }
    }

    /// The monitor charges cycles.
    pub fn charge(&mut self, cycles: u64) {
        self.charged += cycles;
    }

    /// A miss begins at `pc`, unless one is being recorded (then this one is a step of it).
    pub fn miss(&mut self, pc: u64) {
        if self.record.is_none() {
            self.record = Some(Record { pc, steps: Vec::new() });
        }
    }

    /// Adds a step of the monitor, with what was charged since the last, if a miss is being recorded.
    pub fn step(&mut self, kind: &'static str, cycle: u64, values: Vec<(&'static str, Value)>) {
        let cycles = std::mem::take(&mut self.charged);
        self.push(Step { kind, cycle, cycles, values });
    }

    /// Adds an instruction of the guest, if a miss is being recorded.
    pub fn instruction(&mut self, pc: u64, word: u32, cycle: u64) {
        let values = vec![("pc", pc.into()), ("word", u64::from(word).into())];
        self.push(Step { kind: "instruction", cycle, cycles: 1, values });
    }

    fn push(&mut self, step: Step) {
        let Some(record) = &mut self.record else { return };
        if record.steps.len() < STEPS_MAX {
            record.steps.push(step);
        } else {
            self.record = None;
        }
    }

    /// The guest executed the instruction at `pc`. If that ends a miss of the wanted kind, its steps.
    pub fn executed(&mut self, pc: u64) -> Option<Vec<Step>> {
        let record = self.record.take_if(|record| record.pc == pc)?;
        self.wants(&record.steps).then_some(record.steps)
    }

    fn wants(&self, steps: &[Step]) -> bool {
        let has = |kind: &str| steps.iter().any(|step| step.kind == kind);
        let is_forwarded = has("forward");
        match self.wanted {
            MissKind::Any => true,
            MissKind::L2Tlb => is_alone(steps) && !has("kernel segment") && !is_forwarded && has_l2tlb_hit(steps),
            MissKind::Forwarded => is_forwarded && !has("page fault"),
            MissKind::Kernel => is_alone(steps) && has("kernel segment") && !is_forwarded && !has("page fault"),
            MissKind::PageFault => has("page fault"),
        }
    }
}

/// Whether the access went on once there was an entry: no interrupt came between, with misses of its own.
fn is_alone(steps: &[Step]) -> bool {
    steps.iter().position(|step| step.kind == "insert") == steps.len().checked_sub(1)
}

fn has_l2tlb_hit(steps: &[Step]) -> bool {
    steps.iter().any(|step| step.kind == "l2tlb" && step.values.contains(&("hit", Value::Flag(true))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a follower makes of a miss at 0x1000 with these steps; `true` and `false` are answers of the
    /// second-level TLB.
    fn follow(wanted: MissKind, kinds: &[&'static str]) -> bool {
        let mut follower = Follower::new(wanted);
        follower.miss(0x1000);
        for kind in kinds {
            let hit = |hit| vec![("hit", Value::Flag(hit))];
            match *kind {
                "hit" => follower.step("l2tlb", 0, hit(true)),
                "no hit" => follower.step("l2tlb", 0, hit(false)),
                kind => follower.step(kind, 0, Vec::new()),
            }
        }
        assert_eq!(follower.executed(0x2000), None, "another instruction");
        follower.executed(0x1000).is_some()
    }

    #[test]
    fn a_miss_that_an_interrupt_has_come_into_is_of_no_plain_kind() {
        let interrupted =
            ["miss", "hit", "insert", "privileged", "miss", "no hit", "kernel segment", "pmap", "insert"];
        for wanted in [MissKind::L2Tlb, MissKind::Kernel] {
            assert!(!follow(wanted, &interrupted), "{wanted:?}");
        }
        assert!(follow(MissKind::L2Tlb, &["miss", "hit", "insert"]));
        assert!(follow(MissKind::Kernel, &["miss", "no hit", "kernel segment", "pmap", "pmap", "insert"]));
        assert!(!follow(MissKind::Kernel, &["miss", "hit", "insert"]));
        assert!(follow(MissKind::Any, &interrupted));
    }
}
