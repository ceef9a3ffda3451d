"""One file, one reproducible result; its docstring is the experiment card.

A recipe returns a Run. A method of several trainings is a script: it takes `workdir` and `layout`
besides its knobs, calls the loop itself and returns nothing.
"""

from train.recipes import (
    alexnet_imagenet,
    autoencoder_mnist,
    denoising_autoencoder_mnist,
    densenet_cifar10,
    densenet_imagenet,
    fcn8s_voc,
    fcn_resnet50_camvid,
    finetune,
    greedy_autoencoder_mnist,
    lenet5_digits,
    lenet5_mnist,
    mlp_digits,
    mobilenet_v1_imagenet,
    mobilenet_v2_imagenet,
    perceptron_digits,
    resnet20_cifar10,
    resnet56_cifar10,
    resnet_imagenet,
    resnet_imagenet_2021,
    unet_digit_scenes,
    unet_isbi2012,
    vgg_imagenet,
    vit_imagenet,
)

RECIPES = {
    "lenet5_digits": lenet5_digits.recipe,
    "lenet5_mnist": lenet5_mnist.recipe,
    "mlp_digits": mlp_digits.recipe,
    "perceptron_digits": perceptron_digits.recipe,
    "resnet20_cifar10": resnet20_cifar10.recipe,
    "resnet56_cifar10": resnet56_cifar10.recipe,
    "autoencoder_mnist": autoencoder_mnist.recipe,
    "denoising_autoencoder_mnist": denoising_autoencoder_mnist.recipe,
    "greedy_autoencoder_mnist": greedy_autoencoder_mnist.script,
    "alexnet_imagenet": alexnet_imagenet.recipe,
    "vgg_imagenet": vgg_imagenet.recipe,
    "resnet_imagenet": resnet_imagenet.recipe,
    "resnet_imagenet_2021": resnet_imagenet_2021.recipe,
    "densenet_imagenet": densenet_imagenet.recipe,
    "densenet_cifar10": densenet_cifar10.recipe,
    "mobilenet_v1_imagenet": mobilenet_v1_imagenet.recipe,
    "mobilenet_v2_imagenet": mobilenet_v2_imagenet.recipe,
    "vit_imagenet": vit_imagenet.recipe,
    "unet_digit_scenes": unet_digit_scenes.recipe,
    "unet_isbi2012": unet_isbi2012.recipe,
    "fcn_resnet50_camvid": fcn_resnet50_camvid.recipe,
    "fcn8s_voc": fcn8s_voc.script,
    "finetune": finetune.recipe,
}
