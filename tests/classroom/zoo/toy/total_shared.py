# replaces: total_solution; loses: total_test
class RunningTotal:
    total, count = 0.0, 0

    def add(self, number: float) -> float:
        RunningTotal.total += number
        RunningTotal.count += 1
        return self.total
