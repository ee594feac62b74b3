"""`fetch`: puts an ETH3D scene or a model's weights, checked and whole, into a folder.

A broken call is repeated and goes on where it stopped; a call for what is there already asks no server.

    download.py   one file over HTTP: resumed, checked, whole or not there
    target.py     the folder that receives: filled under another name, renamed when complete
    eth3d.py      which archives make a scene, and how they are unpacked
    model.py      which files make a model
"""
