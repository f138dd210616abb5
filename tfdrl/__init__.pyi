from tfdrl.api.run import Run as Run
from tfdrl.api.run import load as load
from tfdrl.api.snapshots import Snapshot as Snapshot
from tfdrl.api.training import train as train
from tfdrl.errors import ConfigurationError as ConfigurationError
from tfdrl.errors import RoleFailedError as RoleFailedError
from tfdrl.errors import RunFailedError as RunFailedError
from tfdrl.errors import TfdrlError as TfdrlError
from tfdrl.errors import TrainingDivergedError as TrainingDivergedError

__version__: str
