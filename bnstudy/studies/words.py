"""What readers see of data sets and models: titles and their order. No part of a verdict."""

# panels come in this order, others behind
ORDER = ("digits", "contrast_digits", "mnist_small", "mnist", "fashion_mnist", "patches", "cifar10",
         "cifar10_jpeg", "photos", "resnet", "lenet", "lenet_relu", "mlp")  # fmt: skip
TITLES = {"mlp": "MLP", "lenet": "LeNet", "lenet_maps": "LeNet, norms on maps only",
          "lenet_relu": "LeNet, ReLU", "resnet50": "ResNet-50",
          "resnet": "ResNet", "mnist": "MNIST",
          "mnist_small": "small MNIST", "gaussian": "white noise", "deep": "deep network",
          "vgg": "VGG-like", "contrast_digits": "contrast digits",
          "patches": "photo patches", "cifar10": "CIFAR-10", "cifar10_jpeg": "CIFAR-10 (JPEG)",
          "fashion_mnist": "Fashion-MNIST", "photos": "photographs", "dncnn": "DnCNN",
          "edsr": "EDSR-like", "unet": "U-Net", "stylizer": "stylizer",
          "transformer": "Transformer"}  # fmt: skip


def titled(data: str, model: str) -> str:
    """A panel's title."""
    return f"{TITLES.get(data, data)}, {TITLES.get(model, model)}"
