//! Histories of a database that runs one transaction after another.

use std::collections::BTreeMap;

use parsec_history::{Element, Found, Operation, Outcome, Process, Step, Tick};
use proptest::prelude::*;

/// What a transaction does to the key of that number.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    ReadRegister(u8),
    /// Reads it first.
    Update(u8),
    /// Does not read it.
    Blind(u8),
    ReadList(u8),
    Append(u8),
    ReadSet(u8),
    Add(u8),
}

/// One transaction.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    process: u8,
    /// How long before its turn it is invoked, and how long after that it returns, in half turns.
    before: u8,
    after: u8,
    outcome: Outcome,
    /// Whether it took effect, if its outcome is unknown.
    lucky: bool,
    actions: Vec<Action>,
}

/// What transactions may be like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) keys: u8,
    pub(crate) processes: u8,
    /// The longest time from being invoked to the turn, and from there to returning.
    pub(crate) delay: u8,
    /// Whether registers may be written without being read.
    pub(crate) blind: bool,
}

fn any_action(shape: Shape) -> impl Strategy<Value = Action> {
    let key = move || 0..shape.keys;
    let blind = move |key| if shape.blind { Action::Blind(key) } else { Action::Update(key) };
    prop_oneof![
        2 => key().prop_map(Action::ReadRegister),
        3 => key().prop_map(Action::Update),
        1 => key().prop_map(blind),
        2 => key().prop_map(Action::ReadList),
        3 => key().prop_map(Action::Append),
        2 => key().prop_map(Action::ReadSet),
        3 => key().prop_map(Action::Add),
    ]
}

/// Any transaction.
pub(crate) fn any_plan(shape: Shape) -> impl Strategy<Value = Plan> {
    let outcome = prop_oneof![
        8 => Just(Outcome::Committed),
        1 => Just(Outcome::Aborted),
        1 => Just(Outcome::Unknown),
    ];
    let times = (0..=shape.delay, 0..=shape.delay);
    let actions = prop::collection::vec(any_action(shape), 1..4);
    (0..shape.processes, times, outcome, any::<bool>(), actions).prop_map(
        |(process, (before, after), outcome, lucky, actions)| Plan {
            process,
            before,
            after,
            outcome,
            lucky,
            actions,
        },
    )
}

/// A database without any concurrency, and all versions that it ever had.
#[derive(Default)]
pub(crate) struct Serial {
    state: BTreeMap<String, Found>,
    pub(crate) versions: BTreeMap<String, Vec<Found>>,
    elements: u64,
}

impl Serial {
    /// What clients of the database see: the transactions take effect in this order, each between
    /// the moment it is invoked and the one it returns.
    pub(crate) fn history(&mut self, plans: &[Plan]) -> Vec<Operation> {
        let turns = (0..).map(|turn| 2 * (turn + 128));
        plans.iter().zip(turns).map(|(plan, turn)| self.run(plan, turn)).collect()
    }

    fn run(&mut self, plan: &Plan, turn: u64) -> Operation {
        let undo = self.state.clone();
        let steps = plan.actions.iter().flat_map(|action| self.act(*action)).collect();
        let took_effect = match plan.outcome {
            Outcome::Committed => true,
            Outcome::Aborted => false,
            Outcome::Unknown => plan.lucky,
        };
        if !took_effect {
            self.state = undo;
        }
        for (key, found) in &self.state {
            self.versions.entry(key.clone()).or_default().push(found.clone());
        }
        Operation {
            process: Process(plan.process.into()),
            invoked: Tick(turn - u64::from(plan.before)),
            returned: Tick(turn + u64::from(plan.after)),
            outcome: plan.outcome,
            steps,
        }
    }

    fn act(&mut self, action: Action) -> Vec<Step> {
        self.elements += 1;
        let element = Element(self.elements);
        let (register, list, set) =
            (Found::Register(None), Found::List(Vec::new()), Found::Set(Vec::new()));
        match action {
            Action::ReadRegister(number) => vec![self.read("r", number, register)],
            Action::Update(number) => {
                let read = self.read("r", number, register);
                vec![read, self.write(number, element)]
            }
            Action::Blind(number) => vec![self.write(number, element)],
            Action::ReadList(number) => vec![self.read("l", number, list)],
            Action::Append(number) => {
                let key = self.put("l", number, list, element);
                vec![Step::Append { key, element }]
            }
            Action::ReadSet(number) => vec![self.read("s", number, set)],
            Action::Add(number) => {
                let key = self.put("s", number, set, element);
                vec![Step::Add { key, element }]
            }
        }
    }

    fn read(&mut self, name: &str, number: u8, initial: Found) -> Step {
        let key = format!("{name}{number}");
        let found = self.state.get(&key).cloned().unwrap_or(initial);
        Step::Read { key, found }
    }

    fn write(&mut self, number: u8, element: Element) -> Step {
        let key = self.put("r", number, Found::Register(None), element);
        Step::Write { key, element }
    }

    fn put(&mut self, name: &str, number: u8, initial: Found, element: Element) -> String {
        let key = format!("{name}{number}");
        let versions = self.versions.entry(key.clone()).or_insert_with(|| vec![initial.clone()]);
        match self.state.entry(key.clone()).or_insert(initial) {
            Found::Register(value) => *value = Some(element),
            Found::List(elements) | Found::Set(elements) => elements.push(element),
        }
        debug_assert!(!versions.is_empty());
        key
    }
}
