"""Makes the .pth files that the tests read. Run it where PyTorch is: python make_fixtures.py

Every tensor counts up: element i of a contiguous tensor is i / 8 (or i).
"""

import pathlib

import torch

HERE = pathlib.Path(__file__).parent


def counting(*shape, dtype=torch.float32):
    numbers = torch.arange(torch.Size(shape).numel()).reshape(shape)
    return (numbers / 8).to(dtype) if dtype.is_floating_point else numbers.to(dtype)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, bias=False)
        self.bn = torch.nn.BatchNorm2d(4)
        self.fc = torch.nn.Linear(4, 2)


net = Net()
for tensor in net.state_dict().values():
    tensor.copy_(counting(*tensor.shape, dtype=tensor.dtype))
torch.save(net.state_dict(), HERE / "state_dict.pth")
torch.save(net.state_dict(), HERE / "legacy.pth", _use_new_zipfile_serialization=False)
checkpoint = {
    "epoch": 3,
    "arch": "net",
    "best": 0.5,
    "state_dict": {f"module.{name}": tensor for name, tensor in net.state_dict().items()},
    "optimizer": torch.optim.SGD(net.parameters(), 0.1, momentum=0.9).state_dict(),
}
torch.save(checkpoint, HERE / "checkpoint.pth")
torch.save(net, HERE / "module.pth")

whole = counting(6, 4)
odd = {
    "transposed": whole.t(),
    "rows": whole[2:4],
    "columns": whole[:, 1:3],
    "shared": whole,
    "parameter": torch.nn.Parameter(counting(3)),
    "half": counting(5, dtype=torch.float16),
    "bfloat16": counting(5, dtype=torch.bfloat16),
    "double": counting(5, dtype=torch.float64),
    "int32": counting(5, dtype=torch.int32),
    "bool": torch.tensor([True, False]),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
}
torch.save(odd, HERE / "odd.pth")
torch.save({"a": torch.zeros(2).expand(1000000, 2)}, HERE / "expanded.pth")

nested = {"epoch": 3, "model": {"state_dict": net.state_dict(), "arch": "net"}, "ema": net.state_dict()}
torch.save(nested, HERE / "nested.pth")
torch.save({}, HERE / "empty.pth")
torch.save({"epoch": 3, "state_dict": {}}, HERE / "no_tensors.pth")
torch.save([torch.zeros(2)], HERE / "list.pth")
torch.save(torch.zeros(2), HERE / "tensor.pth")
