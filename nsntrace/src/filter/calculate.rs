//! Calculations, as the classic machine does them.

use super::{
    classic::{Operand, Operation},
    ebpf::{Instruction, Width::Bits32, operation, test},
    steps::Bad,
    translate::{A, Translation, X},
};

impl Translation<'_> {
    pub(super) fn calculate(&mut self, operation: Operation, operand: Operand, k: u32) -> Result<(), Bad> {
        use Operation::{Divide, Modulo, ShiftLeft, ShiftRight};
        match (operation, operand) {
            (Divide | Modulo, Operand::K) if k == 0 => return self.never(),
            (Divide | Modulo, Operand::X) => self.demand(Instruction::jump_if(Bits32, test::NE, X, 0))?,
            (ShiftLeft | ShiftRight, Operand::K) if k >= u32::BITS => {
                self.set(A, 0);
                return Ok(());
            }
            (ShiftLeft | ShiftRight, Operand::X) => return self.shift_by_x(operation),
            _ => {}
        }
        self.code.push(match operand {
            Operand::K => Instruction::calculate(Bits32, number(operation), A, k.cast_signed()),
            Operand::X => Instruction::calculate(Bits32, number(operation), A, X),
        });
        Ok(())
    }

    /// eBPF would take the count modulo 32.
    fn shift_by_x(&mut self, operation: Operation) -> Result<(), Bad> {
        let (small, done) = (self.code.label(), self.code.label());
        self.code.jump(Instruction::jump_if(Bits32, test::LT, X, u32::BITS.cast_signed()), small)?;
        self.set(A, 0);
        self.code.jump(Instruction::jump(), done)?;
        self.code.bind(small);
        self.code.push(Instruction::calculate(Bits32, number(operation), A, X));
        self.code.bind(done);
        Ok(())
    }
}

fn number(calculation: Operation) -> u8 {
    match calculation {
        Operation::Add => operation::ADD,
        Operation::Subtract => operation::SUB,
        Operation::Multiply => operation::MUL,
        Operation::Divide => operation::DIV,
        Operation::Modulo => operation::MOD,
        Operation::Or => operation::OR,
        Operation::And => operation::AND,
        Operation::Xor => operation::XOR,
        Operation::ShiftLeft => operation::LSH,
        Operation::ShiftRight => operation::RSH,
    }
}
