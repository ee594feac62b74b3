"""`fetch`: downloads an ETH3D scene or a model's weights into a folder and checks them.

A repeated call resumes an interrupted download. If the folder is complete, no server is contacted.

    download.py   one file over HTTP: resumed, checked, written whole or not at all
    target.py     the folder that receives: filled under another name, renamed when complete
    eth3d.py      which archives make a scene, and how they are unpacked
    model.py      which files make a model
"""
