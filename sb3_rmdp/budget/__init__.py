"""How many policies are needed: welfare against their number, and models that grow by one policy after the other."""

from sb3_rmdp.budget.curve import BudgetCurve, BudgetPoint, BudgetRow
from sb3_rmdp.budget.growth import warm_start
from sb3_rmdp.budget.loading import budget_of_models
from sb3_rmdp.budget.training import budget_curve

__all__ = ["BudgetCurve", "BudgetPoint", "BudgetRow", "budget_curve", "budget_of_models", "warm_start"]
