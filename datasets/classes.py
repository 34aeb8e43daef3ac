"""The classes of a dataset: their names in prompts, and what folders and tables call them."""

from collections.abc import Sequence

from core.errors import InputError, some
from core.names import name_key, prompt_name


class ClassNames:
    """Classes in the order of their labels.

    Attributes:
        names: as prompts have them.
        folders: for each class, the folder names or table labels it goes by.
    """

    def __init__(
        self,
        names: Sequence[str],
        folders: Sequence[str] = (),
        aliases: Sequence[Sequence[str]] = (),
    ):
        """
        Args:
            names: class names as the settings, a table or the folders spell them.
            folders: DATASET.CLASS_FOLDERS, one for each class, or none.
            aliases: for each class, its other folder names.
        """
        names = [str(name).strip() for name in names]
        if not all(names):
            raise InputError("DATASET.CLASSNAMES has an empty name; name every class")
        if folders and len(folders) != len(names):
            raise InputError(
                f"DATASET.CLASS_FOLDERS has {len(folders)} names for {len(names)} classes; "
                "give one for each, in the same order"
            )
        self.names = [prompt_name(name) for name in names]
        if not all(self.names):
            raise InputError("DATASET.CLASSNAMES has a name of underscores alone; use words")
        if folders:
            self.folders = [[str(folder)] for folder in folders]
        else:
            others = aliases or [()] * len(names)
            self.folders = [
                list(dict.fromkeys([*other, name]))
                for other, name in zip(others, names, strict=True)
            ]
        self._labels: dict[str, int] = {}
        for label, name in enumerate(self.names):
            # The class name itself counts too: a split file has it where folders have another.
            for spelled in [*self.folders[label], name]:
                if self._labels.setdefault(name_key(spelled), label) != label:
                    raise InputError(
                        f"two classes are named {spelled!r} (letter case and '_' do not count); "
                        "rename one in DATASET.CLASSNAMES or DATASET.CLASS_FOLDERS"
                    )

    def label_of(self, name: str) -> int | None:
        """The label of a class, folder or alias, in any spelling; None if there is none."""
        return self._labels.get(name_key(name))

    def __str__(self) -> str:
        return some(self.names, 20)
